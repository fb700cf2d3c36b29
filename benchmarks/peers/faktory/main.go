// Whole lives of jobs in Faktory: faktory HOST:PORT JOBS
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

const (
	connections = 32 // of producers, and as many of workers: a connection carries one command at a time
	batch       = 100
)

var payload = strings.Repeat("x", 200)

func main() {
	address := os.Args[1]
	jobs, err := strconv.Atoi(os.Args[2])
	must(err)
	var producers, workers []*peer
	for range connections {
		producers, workers = append(producers, dial(address)), append(workers, dial(address))
	}

	start := time.Now()
	var pushed, fetched atomic.Int64
	var all sync.WaitGroup
	for i := range connections {
		all.Go(func() {
			for first := pushed.Add(batch) - batch; first < int64(jobs); first = pushed.Add(batch) - batch {
				var some []string
				for number := first; number < min(first+batch, int64(jobs)); number++ {
					some = append(some, fmt.Sprintf(`{"jid":"bench-%08d","jobtype":"bench","args":["%s"]}`, number, payload))
				}
				if refused := producers[i].call("PUSHB [%s]", strings.Join(some, ",")); refused != "{}" {
					log.Fatalf("refused: %s", refused)
				}
			}
		})
		all.Go(func() {
			for fetched.Add(1) <= int64(jobs) {
				workers[i].work()
			}
		})
	}
	all.Wait()
	seconds := time.Since(start).Seconds()

	var info struct {
		Faktory struct {
			Processed int `json:"total_processed"`
			Failed    int `json:"total_failures"`
		} `json:"faktory"`
	}
	must(json.Unmarshal([]byte(producers[0].call("INFO")), &info))
	completed := info.Faktory.Processed - info.Faktory.Failed
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{"jobs": jobs, "seconds": seconds, "completed": completed}))
}

type peer struct {
	*bufio.Reader
	net.Conn
}

func dial(address string) *peer {
	connection, err := net.Dial("tcp", address)
	must(err)
	p := &peer{bufio.NewReader(connection), connection}
	p.answer() // its greeting
	p.call(`HELLO {"hostname":"bench","wid":"bench","pid":%d,"labels":[],"v":2}`, os.Getpid())
	return p
}

func (p *peer) work() {
	job := ""
	for job == "" { // after two seconds without a job the server answers with none
		job = p.call("FETCH default")
	}
	var unit struct {
		ID string `json:"jid"`
	}
	must(json.Unmarshal([]byte(job), &unit))
	p.call(`ACK {"jid":"%s"}`, unit.ID)
}

func (p *peer) call(format string, values ...any) string {
	_, err := fmt.Fprintf(p.Conn, format+"\r\n", values...)
	must(err)
	return p.answer()
}

// An answer in the form of Redis: a line, or a length and so many bytes.
func (p *peer) answer() string {
	line, err := p.ReadString('\n')
	must(err)
	kind, rest := line[0], strings.TrimSuffix(line[1:], "\r\n")
	switch kind {
	case '+':
		return rest
	case '$':
		size, err := strconv.Atoi(rest)
		must(err)
		if size < 0 {
			return ""
		}
		text := make([]byte, size+len("\r\n"))
		_, err = io.ReadFull(p.Reader, text)
		must(err)
		return string(text[:size])
	}
	log.Fatalf("the server answers %q", line)
	return ""
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
