// A producer: go run ./producer [HOST:PORT]. Makes a job for the worker beside it, and waits for what comes of it.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "jobwire/generated/go/jobwire/v1"

	"jobwire/examples/go/jobworker"
)

func main() {
	target := "127.0.0.1:7272"
	if len(os.Args) > 1 {
		target = os.Args[1]
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A server that is being replaced is waited for, for as long as the call may take.
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := produce(ctx, pb.NewJobServiceClient(conn)); err != nil {
		log.Fatalf("%v (%s)", err, jobworker.Reason(err))
	}
}

func produce(ctx context.Context, jobs pb.JobServiceClient) error {
	made, err := jobs.CreateJob(ctx, &pb.CreateJobRequest{
		RequestId: rand.Text(), // makes it safe to send this again when no answer came
		Job: &pb.Job{
			Type:    "hello",
			Payload: &pb.Payload{ContentType: "text/plain", Body: &pb.Payload_Text{Text: "world"}},
			Labels:  map[string]string{"from": "go"},
		},
	})
	if err != nil {
		return err
	}
	id := made.GetJob().GetId()
	fmt.Printf("job %s waits in queue %s for a worker\n", id, made.GetJob().GetQueue())

	job, err := wait(ctx, jobs, id)
	if err != nil {
		return err
	}
	if job.GetState() != pb.JobState_JOB_STATE_COMPLETED {
		return fmt.Errorf("it ended %s: %s", job.GetState(), job.GetError().GetMessage())
	}
	fmt.Printf("%s in attempt %d: %s\n", job.GetState(), job.GetAttempt(), job.GetResult().GetText())
	return nil
}

// wait answers the job once it has ended.
func wait(ctx context.Context, jobs pb.JobServiceClient, id string) (*pb.Job, error) {
	for {
		answer, err := jobs.WaitJob(ctx, &pb.WaitJobRequest{JobId: id, Timeout: durationpb.New(30 * time.Second)})
		if err != nil || answer.GetEnded() {
			return answer.GetJob(), err
		}
	}
}
