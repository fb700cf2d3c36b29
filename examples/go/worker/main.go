// A worker: go run ./worker [HOST:PORT]. Ctrl-C or SIGTERM lets it finish what it holds.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "jobwire/generated/go/jobwire/v1"

	"jobwire/examples/go/jobworker"
)

func hello(ctx context.Context, job *jobworker.Job) (*pb.Payload, error) {
	name := job.GetPayload().GetText()
	if name == "" {
		return nil, &jobworker.PermanentError{Code: "NO_NAME", Message: "nobody to greet"}
	}
	fmt.Printf("hello, %s\n", name)
	return &pb.Payload{Body: &pb.Payload_Text{Text: "hello, " + name}}, nil
}

func main() {
	target := "127.0.0.1:7272"
	if len(os.Args) > 1 {
		target = os.Args[1]
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	host, _ := os.Hostname()
	worker := &jobworker.Worker{
		Conn:          conn,
		ID:            fmt.Sprintf("%s-%d-%x", host, os.Getpid(), time.Now().UnixNano()),
		Queues:        []string{"default"},
		Concurrency:   4,
		LeaseDuration: 30 * time.Second,
		Grace:         20 * time.Second,
		Handlers:      map[string]jobworker.Handler{"hello": hello},
	}
	if err := worker.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
