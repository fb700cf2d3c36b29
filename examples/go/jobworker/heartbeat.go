package jobworker

import (
	"context"
	"log/slog"
	"time"

	pb "jobwire/generated/go/jobwire/v1"
)

// beatOn beats at once for what has just come, which acknowledges it, and for everything each third of the lease.
func (w *Worker) beatOn(ctx context.Context) error {
	interval := w.LeaseDuration / 3
	timer := time.NewTimer(interval)
	var wait backoff
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-w.arrived:
			if err = w.beat(ctx, (*Job).isNew); err == nil {
				continue
			}
		case <-timer.C:
			err = w.beat(ctx, (*Job).isHeld)
		}
		if err != nil && ctx.Err() == nil {
			slog.Warn("a heartbeat was not answered", "worker", w.ID, "cause", err)
			timer.Reset(min(wait.next(), interval))
			continue
		}
		wait.reset()
		timer.Reset(interval)
	}
}

func (j *Job) isNew() bool  { return !j.acknowledged }
func (j *Job) isHeld() bool { return true }

// beat renews leases, and stops the handlers of those that must not go on.
func (w *Worker) beat(ctx context.Context, which func(*Job) bool) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	jobs := make([]*Job, 0)
	request := &pb.HeartbeatRequest{Worker: w.identity}
	w.mu.Lock()
	for _, job := range w.held {
		if !which(job) {
			continue
		}
		jobs = append(jobs, job)
		request.Leases = append(request.Leases, &pb.LeaseBeat{JobId: job.GetId(), Token: job.token})
	}
	w.mu.Unlock()
	answer, err := w.workers.Heartbeat(ctx, request)
	if err != nil {
		return err
	}
	w.mu.Lock()
	for _, job := range jobs {
		job.acknowledged = true
	}
	w.mu.Unlock()
	for i, lease := range answer.GetLeases() {
		switch lease.GetState() {
		case pb.LeaseState_LEASE_STATE_CANCEL_REQUESTED:
			jobs[i].cancel(&CanceledError{lease.GetCancelReason()})
		case pb.LeaseState_LEASE_STATE_LOST: // or just settled: then the handler has ended, and nobody is stopped
			jobs[i].cancel(ErrLost)
		}
	}
	if answer.GetDirective() == pb.WorkerDirective_WORKER_DIRECTIVE_TERMINATE {
		w.quit()
	}
	return nil
}
