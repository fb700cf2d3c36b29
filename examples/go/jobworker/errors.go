package jobworker

import (
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// Reason is why jobwire refused a call, such as JOB_EXISTS; empty when it was not jobwire that did.
func Reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "jobwire" {
			return info.GetReason()
		}
	}
	return ""
}

// RetryDelay is how long the server asks its caller to wait; 0 when it does not.
func RetryDelay(err error) time.Duration {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

const (
	firstDelay   = 100 * time.Millisecond
	longestDelay = 2 * time.Second
)

// backoff waits a random time below a bound that doubles, so that a thousand workers do not come back at once.
type backoff struct{ bound time.Duration }

func (b *backoff) next() time.Duration {
	b.bound = min(max(2*b.bound, firstDelay), longestDelay)
	return rand.N(b.bound)
}

func (b *backoff) reset() { b.bound = 0 }
