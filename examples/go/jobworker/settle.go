package jobworker

import (
	"context"
	"log/slog"
	"time"

	pb "jobwire/generated/go/jobwire/v1"
)

const (
	callTimeout = 5 * time.Second
	// batch is how many settlements go in one call: with results of 256 KiB they stay below the 16 MiB of a message.
	batch = 50
)

// settleOn sends settlements, all that wait in one call. One that is not answered is repeated: the token makes that safe.
func (w *Worker) settleOn(ctx context.Context) error {
	var updates []*pb.UpdateJobRequest
	for {
		if len(updates) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case first := <-w.settlements:
				updates = append(updates, first)
			}
		}
		for more := true; more && len(updates) < batch; {
			select {
			case next := <-w.settlements:
				updates = append(updates, next)
			default:
				more = false
			}
		}
		var again []*pb.UpdateJobRequest
		for i, result := range w.send(ctx, updates) {
			if refused := w.answered(updates[i], result.GetError()); refused != nil {
				again = append(again, refused)
			}
		}
		updates = again
	}
}

// send repeats the call until it is answered or ctx ends.
func (w *Worker) send(ctx context.Context, updates []*pb.UpdateJobRequest) []*pb.UpdateJobResult {
	var wait backoff
	for {
		calling, cancel := context.WithTimeout(ctx, callTimeout)
		answer, err := w.jobs.BatchUpdateJobs(calling, &pb.BatchUpdateJobsRequest{Requests: updates, Brief: true})
		cancel()
		if err == nil {
			return answer.GetResults()
		}
		delay := wait.next() + RetryDelay(err)
		slog.Warn("settlements are not answered, trying again", "worker", w.ID, "after", delay, "cause", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

// answered takes the server's word on one settlement. It returns the one to send in its place when that was refused for
// what it says, such as a result that is TOO_LARGE: the job must not stay silent for that.
func (w *Worker) answered(update *pb.UpdateJobRequest, refused *pb.ItemError) *pb.UpdateJobRequest {
	reason := refused.GetReason()
	switch reason {
	case "", "LEASE_LOST", "ALREADY_SETTLED", "JOB_NOT_FOUND": // nothing more can be said about this attempt
	default:
		slog.Error("a settlement was refused", "job", update.GetJobId(), "reason", reason, "message", refused.GetMessage())
		if update.GetComplete() != nil {
			return &pb.UpdateJobRequest{JobId: update.GetJobId(), Token: update.GetToken(),
				Change: failure(reason, refused.GetMessage(), true)}
		}
	}
	if w.Settled != nil {
		w.Settled(update, reason)
	}
	w.drop(update.GetJobId(), update.GetToken())
	return nil
}
