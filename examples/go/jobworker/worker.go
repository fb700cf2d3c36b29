// Package jobworker does what every worker of jobwire must do, with nothing but the generated stubs: it claims over one
// stream, beats, settles in batches, stops what was cancelled or lost, reconnects, and drains. Copy it.
package jobworker

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "jobwire/generated/go/jobwire/v1"
)

// silence is how long a stream may say nothing, three keepalives, until it counts as dead.
const silence = 45 * time.Second

// Handler runs one job. Its context ends when the job must stop; context.Cause says why: a CanceledError, ErrLost or
// ErrDraining. What it returns settles the job: nil completes it, a PermanentError is not retried.
type Handler func(ctx context.Context, job *Job) (*pb.Payload, error)

// Worker is one worker id with one claim stream. Set the fields, then Run it once.
type Worker struct {
	Conn          grpc.ClientConnInterface
	ID            string // unique among running processes
	Queues        []string
	Concurrency   uint32 // at most 1,000: one heartbeat carries no more
	LeaseDuration time.Duration
	Grace         time.Duration // for handlers to finish in, once Run's context has ended
	Handlers      map[string]Handler
	Settled       func(update *pb.UpdateJobRequest, reason string) // optional; the reason is empty when it was accepted

	jobs        pb.JobServiceClient
	workers     pb.WorkerServiceClient
	identity    *pb.WorkerIdentity
	handling    sync.WaitGroup
	arrived     chan struct{} // rung when a delivery waits for its acknowledgment
	settlements chan *pb.UpdateJobRequest
	quit        context.CancelFunc // begins the drain

	mu   sync.Mutex
	held map[string]*Job // by job id, until the settlement is answered
}

// Run works until ctx ends, then drains: it claims no more, gives handlers Grace to finish, and releases the rest. The
// error is one that no reconnecting can mend, such as SUPERSEDED.
func (w *Worker) Run(ctx context.Context) error {
	w.jobs, w.workers = pb.NewJobServiceClient(w.Conn), pb.NewWorkerServiceClient(w.Conn)
	host, _ := os.Hostname()
	w.identity = &pb.WorkerIdentity{Id: w.ID, Host: host, Pid: uint32(os.Getpid()), Runtime: "go"}
	w.arrived, w.settlements = make(chan struct{}, 1), make(chan *pb.UpdateJobRequest, w.Concurrency)
	w.held = make(map[string]*Job)
	ctx, w.quit = context.WithCancel(ctx)
	defer w.quit()

	// Beats and settlements outlive the drain: until the last job is settled, its lease must be kept.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var background errgroup.Group
	background.Go(func() error { return w.beatOn(life) })
	background.Go(func() error { return w.settleOn(life) })

	err := w.claimOn(ctx, life)
	hurry := time.AfterFunc(w.Grace, func() { w.stopAll(ErrDraining) })
	w.handling.Wait() // a handler counts until its settlement is answered
	hurry.Stop()
	end()
	_ = background.Wait() // both end with their context and with no error of their own
	return err
}

// claimOn keeps one claim stream open until ctx ends.
func (w *Worker) claimOn(ctx, life context.Context) error {
	var wait backoff
	for ctx.Err() == nil {
		reconnectAfter, err := w.listen(ctx, life, &wait)
		switch reason := Reason(err); reason {
		case "SUPERSEDED", "INVALID_FIELD", "UNAUTHENTICATED", "PERMISSION_DENIED":
			return fmt.Errorf("worker %s ends: %w", w.ID, err)
		}
		if ctx.Err() != nil {
			break
		}
		delay := wait.next() + max(reconnectAfter, RetryDelay(err))
		slog.Warn("no stream, trying again", "worker", w.ID, "after", delay, "cause", err)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
	return nil
}

// listen opens a stream and takes what it brings until it ends. The server may say how long to stay away.
func (w *Worker) listen(ctx, life context.Context, wait *backoff) (time.Duration, error) {
	streaming, hangUp := context.WithCancel(life)
	defer hangUp()
	// What has just come is acknowledged before the stream is cancelled: else the server takes it back.
	defer context.AfterFunc(ctx, func() { _ = w.beat(life, (*Job).isHeld); hangUp() })()
	alarm := time.AfterFunc(silence, hangUp)
	defer alarm.Stop()

	identity := proto.CloneOf(w.identity)
	identity.Session = time.Now().UnixMicro() // rises from stream to stream: the server keeps the newest
	stream, err := w.jobs.ClaimJob(streaming, &pb.ClaimJobRequest{
		Worker:        identity,
		Queues:        w.Queues,
		MaxInFlight:   &w.Concurrency,
		LeaseDuration: durationpb.New(w.LeaseDuration),
	})
	if err != nil {
		return 0, err
	}
	var reconnectAfter time.Duration
	for {
		message, err := stream.Recv()
		if err != nil {
			return reconnectAfter, err
		}
		alarm.Reset(silence)
		wait.reset()
		switch event := message.GetEvent().(type) {
		case *pb.ClaimJobResponse_Jobs:
			if ctx.Err() != nil {
				continue // draining: unacknowledged, it goes back with the end of the stream
			}
			for _, assignment := range event.Jobs.GetAssignments() {
				w.start(life, assignment)
			}
			select {
			case w.arrived <- struct{}{}:
			default:
			}
		case *pb.ClaimJobResponse_Cancel:
			w.stop(event.Cancel.GetJobId(), event.Cancel.GetFence(), &CanceledError{event.Cancel.GetReason()})
		case *pb.ClaimJobResponse_Lost:
			w.stop(event.Lost.GetJobId(), event.Lost.GetFence(), ErrLost)
		case *pb.ClaimJobResponse_Drain:
			reconnectAfter = event.Drain.GetReconnectAfter().AsDuration()
		}
	}
}
