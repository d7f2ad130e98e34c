package scenario

import (
	"maps"
	"testing"
)

const wrkOutput = `Running 4s test @ http://10.77.2.3:5201/reply
  1 threads and 100 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.52ms    0.40ms  12.01ms   90.00%
    Req/Sec    65.90k     2.00k   70.00k    75.00%
  Latency Distribution
     50%    1.41ms
     75%    1.50ms
     90%  900.00us
     99%    1.20s
  263114 requests in 4.00s, 65.74MB read
  Socket errors: connect 0, read 1, write 0, timeout 2
  Non-2xx or 3xx responses: 5
Requests/sec:  65778.50
Transfer/sec:     16.43MB
`

func TestWrkIsRead(t *testing.T) {
	figures, requests, err := parseWrk(wrkOutput)
	want := Figures{P50: 1.41, P90: 0.9, P99: 1200, Rate: 65778.5, Errors: 8}
	if err != nil || requests != 263114 || !maps.Equal(figures, want) {
		t.Errorf("%g, %v, %v", requests, figures, err)
	}
}

func TestWrkThatCountedNothingIsAnError(t *testing.T) {
	for _, text := range []string{"", "  0 requests in 4.00s, 0.00B read\nRequests/sec:      0.00\n", "     99%    soon\n", "x requests in 4s\n"} {
		if _, _, err := parseWrk(text); err == nil {
			t.Errorf("%q", text)
		}
	}
}
