// Whole lives of jobs in beanstalkd: beanstalkd HOST:PORT JOBS CONNECTIONS DEPTH
//
// Half of the connections put, the others reserve and delete; each sends DEPTH commands before it reads their answers.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var payload = strings.Repeat("x", 200)

func main() {
	address := os.Args[1]
	jobs, connections, depth := number(os.Args[2]), number(os.Args[3]), number(os.Args[4])
	toPut, toReserve := &share{left: int64(jobs)}, &share{left: int64(jobs)}
	var producers, workers []*peer
	for range connections / 2 {
		producers, workers = append(producers, dial(address)), append(workers, dial(address))
	}

	start := time.Now()
	var all sync.WaitGroup
	for i := range producers {
		all.Go(func() { producers[i].produce(toPut, depth) })
		all.Go(func() { workers[i].work(toReserve, depth) })
	}
	all.Wait()
	seconds := time.Since(start).Seconds()

	completed := producers[0].completed(jobs)
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{"jobs": jobs, "seconds": seconds, "completed": completed}))
}

// A share hands out the jobs that are still to be done.
type share struct{ left int64 }

func (s *share) take(most int) int {
	left := atomic.AddInt64(&s.left, -int64(most)) + int64(most)
	return int(max(0, min(left, int64(most))))
}

type peer struct {
	*bufio.Reader
	*bufio.Writer
}

func dial(address string) *peer {
	connection, err := net.Dial("tcp", address)
	must(err)
	return &peer{bufio.NewReaderSize(connection, 1<<17), bufio.NewWriterSize(connection, 1<<17)}
}

func (p *peer) produce(share *share, depth int) {
	for count := share.take(depth); count > 0; count = share.take(depth) {
		for range count {
			fmt.Fprintf(p.Writer, "put 1024 0 60 %d\r\n%s\r\n", len(payload), payload)
		}
		must(p.Flush())
		for range count {
			p.answer("INSERTED ")
		}
	}
}

func (p *peer) work(share *share, depth int) {
	var held []string
	for {
		// A reserve without a job holds up all that was sent after it, so there are never more of them than jobs.
		count := share.take(depth)
		for _, id := range held {
			fmt.Fprintf(p.Writer, "delete %s\r\n", id)
		}
		p.WriteString(strings.Repeat("reserve\r\n", count))
		must(p.Flush())
		for range held {
			p.answer("DELETED")
		}
		held = held[:0]
		if count == 0 {
			return
		}
		for range count {
			id, size, _ := strings.Cut(p.answer("RESERVED "), " ")
			_, err := p.Discard(number(size) + len("\r\n"))
			must(err)
			held = append(held, id)
		}
	}
}

// The server's own count of deleted jobs, all of those that were put.
func (p *peer) completed(jobs int) int {
	p.WriteString("stats-tube default\r\n")
	must(p.Flush())
	text := make([]byte, number(p.answer("OK ")))
	_, err := io.ReadFull(p.Reader, text)
	must(err)
	counts := map[string]int{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		counts[name], _ = strconv.Atoi(value)
	}
	if counts["total-jobs"] != jobs {
		log.Fatalf("%d jobs were put, the server counts %d", jobs, counts["total-jobs"])
	}
	return counts["cmd-delete"]
}

func (p *peer) answer(expected string) string {
	line, err := p.ReadString('\n')
	must(err)
	rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\r\n"), expected)
	if !ok {
		log.Fatalf("%q where %q was expected", line, expected)
	}
	return rest
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	must(err)
	return value
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
