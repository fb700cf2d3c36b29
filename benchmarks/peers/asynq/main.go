// Whole lives of jobs in asynq: asynq redis://… JOBS
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
)

const (
	producers   = 32 // there is no call for many jobs
	concurrency = 100
)

func main() {
	redis, err := asynq.ParseRedisURI(os.Args[1])
	must(err)
	jobs, err := strconv.Atoi(os.Args[2])
	must(err)

	var done atomic.Int64
	finished := make(chan struct{})
	server := asynq.NewServer(redis, asynq.Config{Concurrency: concurrency, LogLevel: asynq.ErrorLevel})
	must(server.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		if _, err := task.ResultWriter().Write([]byte("ok")); err != nil {
			return err
		}
		if done.Add(1) == int64(jobs) {
			close(finished)
		}
		return nil
	})))
	client := asynq.NewClient(redis)
	inspector := asynq.NewInspector(redis)

	payload := []byte(strings.Repeat("x", 200))
	start := time.Now()
	var left atomic.Int64
	left.Store(int64(jobs))
	var producing sync.WaitGroup
	for range producers {
		producing.Go(func() {
			for left.Add(-1) >= 0 {
				// With a retention a completed task stays and is counted, with its result.
				_, err := client.Enqueue(asynq.NewTask("bench", payload), asynq.Retention(time.Hour))
				must(err)
			}
		})
	}
	producing.Wait()
	<-finished
	// The handlers have ended; the last completions are on their way to Redis.
	completed := count(inspector)
	for deadline := time.Now().Add(10 * time.Second); completed < jobs && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
		completed = count(inspector)
	}
	seconds := time.Since(start).Seconds()

	must(json.NewEncoder(os.Stdout).Encode(map[string]any{"jobs": jobs, "seconds": seconds, "completed": completed}))
	server.Shutdown()
}

func count(inspector *asynq.Inspector) int {
	queue, err := inspector.GetQueueInfo("default")
	must(err)
	return queue.Completed
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
