// Whole lives of jobs in River on PostgreSQL: river postgres://… JOBS
package main

import (
	"context"
	"encoding/json"
	"log"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const (
	batch   = 500
	workers = 2000 // a claim takes as many jobs as there are free workers
)

type args struct {
	Payload string `json:"payload"`
}

func (args) Kind() string { return "bench" }

type worker struct {
	river.WorkerDefaults[args]
}

func (worker) Work(ctx context.Context, _ *river.Job[args]) error {
	return river.RecordOutput(ctx, "ok")
}

func main() {
	ctx := context.Background()
	jobs, err := strconv.Atoi(os.Args[2])
	must(err)
	pool, err := pgxpool.New(ctx, os.Args[1])
	must(err)
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: quiet()})
	must(err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	must(err)

	kinds := river.NewWorkers()
	river.AddWorker(kinds, &worker{})
	client, err := river.NewClient(driver, &river.Config{
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workers}},
		Workers:           kinds,
		FetchCooldown:     time.Millisecond, // the shortest it allows
		FetchPollInterval: 10 * time.Millisecond,
		Logger:            quiet(),
	})
	must(err)
	// An event follows the write to the database; the channel drops what finds no room.
	events, unsubscribe := client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: jobs, Kinds: []river.EventKind{river.EventKindJobCompleted, river.EventKindJobFailed},
	})
	defer unsubscribe()
	must(client.Start(ctx))

	payload := strings.Repeat("x", 200)
	start := time.Now()
	for left := jobs; left > 0; left -= batch {
		many := make([]river.InsertManyParams, min(batch, left))
		for i := range many {
			many[i].Args = args{Payload: payload}
		}
		_, err := client.InsertManyFast(ctx, many)
		must(err)
	}
	for range jobs {
		if event := <-events; event.Kind != river.EventKindJobCompleted {
			log.Fatalf("a job failed: %v", event.Job.Errors)
		}
	}
	seconds := time.Since(start).Seconds()

	var completed int
	must(pool.QueryRow(ctx, "SELECT count(*) FROM river_job WHERE state = 'completed'").Scan(&completed))
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{"jobs": jobs, "seconds": seconds, "completed": completed}))
	must(client.Stop(ctx))
}

func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
