// What a client in Go gets out of a server: go run . HOST:PORT [SECONDS]. Prints JSON, a line for each figure, in jobs a
// second: single creates with 1, 16 and 64 in flight, batches of 100 and 1,000, and how fast the example's worker claims and
// settles what was created. benchmarks/from_python.py does the same.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"jobwire/examples/go/jobworker"
	pb "jobwire/generated/go/jobwire/v1"
)

const queue = "benchmark-go"

func main() {
	seconds := 5.0
	if len(os.Args) > 2 {
		var err error
		if seconds, err = strconv.ParseFloat(os.Args[2], 64); err != nil {
			log.Fatal(err)
		}
	}
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	jobs := pb.NewJobServiceClient(conn)
	lasting := time.Duration(seconds * float64(time.Second))

	created := 0
	for _, inFlight := range []int{1, 16, 64} {
		count := repeat(inFlight, lasting, func(ctx context.Context) (int, error) {
			_, err := jobs.CreateJob(ctx, newJob())
			return 1, err
		})
		tell(fmt.Sprintf("CreateJob, %d in flight", inFlight), float64(count)/seconds)
		created += count
	}
	for _, size := range []int{100, 1000} {
		request := &pb.BatchCreateJobsRequest{Brief: true}
		for range size {
			request.Requests = append(request.Requests, newJob())
		}
		count := repeat(2, lasting, func(ctx context.Context) (int, error) {
			_, err := jobs.BatchCreateJobs(ctx, request)
			return size, err
		})
		tell(fmt.Sprintf("BatchCreateJobs of %d, 2 in flight", size), float64(count)/seconds)
		created += count
	}
	tell("claim and settle, 500 at a time", settle(conn, created))
}

func tell(figure string, rate float64) {
	fmt.Printf("{\"figure\": %q, \"rate\": %.1f}\n", figure, rate)
}

// newJob has the payload of every benchmark here: 200 bytes.
func newJob() *pb.CreateJobRequest {
	return &pb.CreateJobRequest{Job: &pb.Job{
		Queue: queue, Type: "nothing", Payload: &pb.Payload{Body: &pb.Payload_Text{Text: strings.Repeat("x", 200)}},
	}}
}

// repeat makes calls for so long, and counts the jobs of all that were answered.
func repeat(inFlight int, lasting time.Duration, call func(context.Context) (int, error)) int {
	end := time.Now().Add(lasting)
	var count atomic.Int64
	var callers sync.WaitGroup
	for range inFlight {
		callers.Go(func() {
			for time.Now().Before(end) {
				jobs, err := call(context.Background())
				if err != nil {
					log.Fatal(err)
				}
				count.Add(int64(jobs))
			}
		})
	}
	callers.Wait()
	return int(count.Load())
}

// settle works off so many jobs, and answers the rate.
func settle(conn *grpc.ClientConn, jobs int) float64 {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	left := jobs
	worker := &jobworker.Worker{
		Conn:          conn,
		ID:            fmt.Sprintf("benchmark-%d", os.Getpid()),
		Queues:        []string{queue},
		Concurrency:   500,
		LeaseDuration: 30 * time.Second,
		Grace:         10 * time.Second,
		Handlers: map[string]jobworker.Handler{
			"nothing": func(context.Context, *jobworker.Job) (*pb.Payload, error) {
				return &pb.Payload{Body: &pb.Payload_Text{Text: "ok"}}, nil
			},
		},
		Settled: func(*pb.UpdateJobRequest, string) {
			if left--; left == 0 {
				stop()
			}
		},
	}
	began := time.Now()
	if err := worker.Run(ctx); err != nil {
		log.Fatal(err)
	}
	return float64(jobs) / time.Since(began).Seconds()
}
