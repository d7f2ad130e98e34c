package netlab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"
)

// CurlResult is what curl tells of a transfer.
type CurlResult struct {
	Status         int            // of HTTP
	Local, Remote  netip.AddrPort // of its connection
	Received, Sent int64          // bytes of bodies
	Time           time.Duration  // of the whole transfer
	Connect        time.Duration  // until the connection was established
	NumConnects    int            // new connections: 0 if one was reused
}

// Curl runs curl in the host for one transfer. The response body goes to body, or is discarded if
// that is nil. A status of 400 and above is an error only if args contain --fail. Errors of curl
// itself are returned with its message, and with the result so far.
func (h *Host) Curl(ctx context.Context, url string, body io.Writer, args ...string) (CurlResult, error) {
	path, err := program("curl")
	if err != nil {
		return CurlResult{}, err
	}
	// The report goes to stdout, so the body takes another way.
	output := "/dev/null"
	var r, w *os.File
	if body != nil {
		output = "/dev/fd/3"
		if r, w, err = os.Pipe(); err != nil {
			return CurlResult{}, fmt.Errorf("netlab: %s: curl: %w", h.Name, err)
		}
		defer r.Close()
	}
	c := h.Command(ctx, path, append([]string{"-q", "-sS", "-o", output, "-w", "%{json}"}, append(args, url)...)...)
	copied := make(chan error, 1)
	if body != nil {
		c.ExtraFiles = []*os.File{w}
		go func() {
			_, err := io.Copy(body, r)
			if err != nil {
				r.Close() // so that curl does not wait for us
			}
			copied <- err
		}()
	} else {
		copied <- nil
	}
	out, err := c.Output()
	if w != nil {
		w.Close()
	}
	if copyErr := <-copied; copyErr != nil && err == nil {
		err = c.wrap(fmt.Errorf("write the body: %w", copyErr))
	}
	result, jsonErr := parseCurl(out)
	if err == nil && jsonErr != nil {
		err = c.wrap(fmt.Errorf("its report: %w", jsonErr))
	}
	return result, err
}

func parseCurl(out []byte) (CurlResult, error) {
	var report struct {
		Status      int     `json:"response_code"`
		LocalIP     string  `json:"local_ip"`
		LocalPort   uint16  `json:"local_port"`
		RemoteIP    string  `json:"remote_ip"`
		RemotePort  uint16  `json:"remote_port"`
		Download    int64   `json:"size_download"`
		Upload      int64   `json:"size_upload"`
		Total       float64 `json:"time_total"`
		Connect     float64 `json:"time_connect"`
		NumConnects int     `json:"num_connects"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return CurlResult{}, err
	}
	// Without a connection there are no addresses; they stay zero then.
	local, _ := netip.ParseAddr(report.LocalIP)
	remote, _ := netip.ParseAddr(report.RemoteIP)
	return CurlResult{
		Status:      report.Status,
		Local:       netip.AddrPortFrom(local, report.LocalPort),
		Remote:      netip.AddrPortFrom(remote, report.RemotePort),
		Received:    report.Download,
		Sent:        report.Upload,
		Time:        time.Duration(report.Total * float64(time.Second)),
		Connect:     time.Duration(report.Connect * float64(time.Second)),
		NumConnects: report.NumConnects,
	}, nil
}
