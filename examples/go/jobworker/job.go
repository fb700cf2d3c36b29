package jobworker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "jobwire/generated/go/jobwire/v1"
)

var (
	// ErrLost is the cause when the lease is gone: another worker may have the job.
	ErrLost = errors.New("the lease is lost")
	// ErrDraining is the cause when the worker ends and its grace has passed.
	ErrDraining = errors.New("the worker is draining")
)

// CanceledError is the cause when somebody has cancelled the job.
type CanceledError struct{ Reason string }

func (e *CanceledError) Error() string { return "canceled: " + e.Reason }

// PermanentError fails a job for good: no retry can help.
type PermanentError struct{ Code, Message string }

func (e *PermanentError) Error() string { return e.Message }

// Job is one run of a job: what it says, and the right to run it.
type Job struct {
	*pb.Job
	token  string
	cancel context.CancelCauseFunc
	worker *Worker

	acknowledged bool // guarded by the worker's mutex
}

// Report tells everybody how far the job is.
func (j *Job) Report(ctx context.Context, fraction float64, message string) error {
	_, err := j.worker.jobs.UpdateJob(ctx, &pb.UpdateJobRequest{JobId: j.GetId(), Token: j.token,
		Change: &pb.UpdateJobRequest_Progress{Progress: &pb.ReportProgress{Fraction: &fraction, Message: message}}})
	return err
}

// start runs the handler of a new assignment. Of two runs of one job the newer one wins: the older has lost its lease.
func (w *Worker) start(life context.Context, assignment *pb.Assignment) {
	ctx, cancel := context.WithCancelCause(life)
	job := &Job{Job: assignment.GetJob(), token: assignment.GetToken(), cancel: cancel, worker: w}
	w.mu.Lock()
	if older := w.held[job.GetId()]; older != nil {
		older.cancel(ErrLost)
	}
	w.held[job.GetId()] = job
	w.mu.Unlock()
	w.handling.Add(1)
	go func() {
		defer cancel(nil)
		result, err := w.handle(ctx, job)
		if errors.Is(context.Cause(ctx), ErrLost) {
			w.drop(job.GetId(), job.token)
			return // nothing to report: whoever has the lease now will
		}
		w.settlements <- settlement(ctx, job, result, err)
	}()
}

// handle turns a panic into a failure, so that one bad job does not end the others.
func (w *Worker) handle(ctx context.Context, job *Job) (result *pb.Payload, err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("the handler panicked: %v", broken)
		}
	}()
	handler := w.Handlers[job.GetType()]
	if handler == nil {
		return nil, errNoHandler
	}
	return handler(ctx, job)
}

var errNoHandler = errors.New("no handler for this type")

func settlement(ctx context.Context, job *Job, result *pb.Payload, err error) *pb.UpdateJobRequest {
	update := &pb.UpdateJobRequest{JobId: job.GetId(), Token: job.token}
	var permanent *PermanentError
	switch {
	case err == nil:
		update.Change = &pb.UpdateJobRequest_Complete{Complete: &pb.CompleteJob{Result: result}}
	case errors.Is(err, errNoHandler): // for a worker that knows the type
		update.Change = &pb.UpdateJobRequest_Release{Release: &pb.ReleaseJob{Delay: durationpb.New(30 * time.Second)}}
	case context.Cause(ctx) != nil: // stopped, and not its fault: after a cancel this makes the job CANCELED
		update.Change = &pb.UpdateJobRequest_Release{Release: &pb.ReleaseJob{}}
	case errors.As(err, &permanent):
		update.Change = failure(permanent.Code, err.Error(), true)
	default:
		update.Change = failure(fmt.Sprintf("%T", err), err.Error(), false)
	}
	return update
}

func failure(code, message string, permanent bool) *pb.UpdateJobRequest_Fail {
	return &pb.UpdateJobRequest_Fail{Fail: &pb.FailJob{
		Error:     &pb.JobError{Code: code, Message: message},
		Permanent: permanent,
	}}
}

// stop ends a handler if it still runs under that lease: a word about an older one is not for us.
func (w *Worker) stop(id string, fence int64, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if job := w.held[id]; job != nil && job.GetFence() == fence {
		job.cancel(cause)
	}
}

func (w *Worker) stopAll(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, job := range w.held {
		job.cancel(cause)
	}
}

// drop forgets a run whose settlement is answered or whose lease is lost.
func (w *Worker) drop(id, token string) {
	w.mu.Lock()
	if job := w.held[id]; job != nil && job.token == token {
		delete(w.held, id)
	}
	w.mu.Unlock()
	w.handling.Done()
}
