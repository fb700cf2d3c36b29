// What tests/polyglot drives: it makes the calls it is told on stdin, or runs the example's worker, and prints what it sees
// as JSON, a line each.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "jobwire/generated/go/jobwire/v1"

	"jobwire/examples/go/jobworker"
)

type step struct {
	Call    string
	Request json.RawMessage
	Work    *work
	Watch   json.RawMessage
	Finish  string
}

type work struct {
	ID           string
	Queues       []string
	Concurrency  uint32
	LeaseSeconds float64
	GraceSeconds float64
}

func main() {
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	calls := callsOf(conn)
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var told step
		if err := json.Unmarshal(line, &told); err != nil {
			log.Fatal(err)
		}
		if told.Work != nil {
			workOn(conn, *told.Work, lines)
			return
		}
		if told.Watch != nil {
			watch(conn, told.Watch)
			return
		}
		answer, err := calls[told.Call](context.Background(), told.Request)
		if err != nil {
			tell(map[string]any{"code": status.Code(err), "reason": jobworker.Reason(err)})
		} else {
			tell(map[string]any{"response": answer})
		}
	}
}

// --- calls -----------------------------------------------------------------------------------------------------------

type call func(context.Context, []byte) (any, error)

func callsOf(conn *grpc.ClientConn) map[string]call {
	jobs, workers := pb.NewJobServiceClient(conn), pb.NewWorkerServiceClient(conn)
	return map[string]call{
		"CreateJob":        unary(jobs.CreateJob),
		"BatchCreateJobs":  unary(jobs.BatchCreateJobs),
		"GetJob":           unary(jobs.GetJob),
		"UpdateJob":        unary(jobs.UpdateJob),
		"BatchUpdateJobs":  unary(jobs.BatchUpdateJobs),
		"CancelJob":        unary(jobs.CancelJob),
		"RetryJob":         unary(jobs.RetryJob),
		"RecoverStuckJobs": unary(jobs.RecoverStuckJobs),
		"Heartbeat":        unary(workers.Heartbeat),
		"DrainWorker":      unary(workers.DrainWorker),
		"WaitJob":          unary(jobs.WaitJob),
		"ClaimJob":         streamed(jobs.ClaimJob),
	}
}

type message[T any] interface {
	*T
	proto.Message
}

func unary[Q any, QP message[Q], A proto.Message](method func(context.Context, QP, ...grpc.CallOption) (A, error)) call {
	return func(ctx context.Context, given []byte) (any, error) {
		request := QP(new(Q))
		if err := protojson.Unmarshal(given, request); err != nil {
			return nil, err
		}
		answer, err := method(ctx, request, grpc.WaitForReady(true))
		if err != nil {
			return nil, err
		}
		return asJSON(answer), nil
	}
}

func streamed[Q any, QP message[Q], A any](
	method func(context.Context, QP, ...grpc.CallOption) (grpc.ServerStreamingClient[A], error),
) call {
	return func(ctx context.Context, given []byte) (any, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		request := QP(new(Q))
		if err := protojson.Unmarshal(given, request); err != nil {
			return nil, err
		}
		stream, err := method(ctx, request, grpc.WaitForReady(true))
		if err != nil {
			return nil, err
		}
		answers := []any{}
		for {
			answer, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return answers, nil
			} else if err != nil {
				return nil, err
			}
			answers = append(answers, asJSON(any(answer).(proto.Message)))
		}
	}
}

func asJSON(answer proto.Message) json.RawMessage {
	text, err := protojson.Marshal(answer)
	if err != nil {
		log.Fatal(err)
	}
	return text
}

// watch prints what a watch brings, for as long as it lasts.
func watch(conn *grpc.ClientConn, given []byte) {
	request := &pb.WatchJobsRequest{}
	if err := protojson.Unmarshal(given, request); err != nil {
		log.Fatal(err)
	}
	stream, err := pb.NewJobServiceClient(conn).WatchJobs(context.Background(), request)
	if err != nil {
		log.Fatal(err)
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			log.Fatal(err)
		}
		tell(asJSON(event))
	}
}

// --- work ------------------------------------------------------------------------------------------------------------

func workOn(conn *grpc.ClientConn, told work, lines *bufio.Reader) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { tell(map[string]any{"event": "draining"}) })
	worker := &jobworker.Worker{
		Conn:          conn,
		ID:            told.ID,
		Queues:        told.Queues,
		Concurrency:   told.Concurrency,
		LeaseDuration: time.Duration(told.LeaseSeconds * float64(time.Second)),
		Grace:         time.Duration(told.GraceSeconds * float64(time.Second)),
		Settled: func(update *pb.UpdateJobRequest, reason string) {
			tell(map[string]any{"event": "settled", "job": update.GetJobId(), "verb": verb(update), "reason": reason})
		},
	}
	finish := make(chan struct{})
	worker.Handlers = map[string]jobworker.Handler{
		"echo": seen(func(_ context.Context, job *jobworker.Job) (*pb.Payload, error) { return job.GetPayload(), nil }),
		"flaky": seen(func(_ context.Context, job *jobworker.Job) (*pb.Payload, error) {
			if job.GetAttempt() == 1 {
				return nil, errors.New("told to fail")
			}
			return nil, nil
		}),
		"doomed": seen(func(context.Context, *jobworker.Job) (*pb.Payload, error) {
			return nil, &jobworker.PermanentError{Code: "DOOMED", Message: "told to fail for good"}
		}),
		"hold": seen(func(ctx context.Context, job *jobworker.Job) (*pb.Payload, error) {
			if err := job.Report(ctx, 0.5, "half way"); err != nil {
				return nil, err
			}
			return hold(ctx, job, finish)
		}),
		"mute": seen(func(ctx context.Context, job *jobworker.Job) (*pb.Payload, error) { return hold(ctx, job, finish) }),
	}
	go func() { // the next line is the word to finish, or the end of the test
		if _, err := lines.ReadBytes('\n'); err == nil {
			close(finish)
		}
	}()
	err := worker.Run(ctx)
	tell(map[string]any{"event": "ended", "reason": jobworker.Reason(err)})
}

func seen(handler jobworker.Handler) jobworker.Handler {
	return func(ctx context.Context, job *jobworker.Job) (*pb.Payload, error) {
		fence := strconv.FormatInt(job.GetFence(), 10) // as in the JSON of protobuf
		tell(map[string]any{"event": "started", "job": job.GetId(), "attempt": job.GetAttempt(), "fence": fence})
		return handler(ctx, job)
	}
}

func hold(ctx context.Context, job *jobworker.Job, finish <-chan struct{}) (*pb.Payload, error) {
	tell(map[string]any{"event": "holding", "job": job.GetId()})
	select {
	case <-finish:
		return nil, nil
	case <-ctx.Done():
	}
	cause, canceled := "lost", (*jobworker.CanceledError)(nil)
	switch {
	case errors.As(context.Cause(ctx), &canceled):
		cause = "canceled for " + canceled.Reason
	case errors.Is(context.Cause(ctx), jobworker.ErrDraining):
		cause = "draining"
	}
	tell(map[string]any{"event": "stopped", "job": job.GetId(), "cause": cause})
	return nil, context.Cause(ctx)
}

func verb(update *pb.UpdateJobRequest) string {
	switch {
	case update.GetComplete() != nil:
		return "complete"
	case update.GetFail() != nil:
		return "fail"
	default:
		return "release"
	}
}

var telling sync.Mutex

func tell(what any) {
	telling.Lock()
	defer telling.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(what); err != nil {
		log.Fatal(err)
	}
}
