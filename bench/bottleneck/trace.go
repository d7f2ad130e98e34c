package bottleneck

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

// packet is a packet of a connection, as the sender's host sees it.
type packet struct {
	at     float64 // seconds since the first one
	sent   bool    // by the sender
	seq    uint64  // of its first byte, in the connection
	ack    uint64
	length int
	window int // that it announces, in bytes
}

// traceLine is a line of tcpdump -n -tt, which counts from the first byte of a connection by
// itself.
var (
	traceLine = regexp.MustCompile(`^(\d+\.\d+) IP (\S+) > ([^:\s]+): Flags \[([^\]]*)\](?:, seq (\d+)(?::\d+)?)?(?:, ack (\d+))?(?:, win (\d+))?(.*?), length (\d+)`)
	scale     = regexp.MustCompile(`wscale (\d+)`)
)

// parseTrace reads the packets of the connection with the most bytes. sender is the address
// of the host that sends.
func parseTrace(text string, sender netip.Addr) []packet {
	type ends struct{ from, to string }
	connections, scales, total := map[ends][]packet{}, map[ends]int{}, map[ends]int{}
	for line := range strings.Lines(text) {
		found := traceLine.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		way := ends{found[2], found[3]}
		if strings.Contains(found[4], "S") {
			if shift := scale.FindStringSubmatch(found[8]); shift != nil {
				scales[way], _ = strconv.Atoi(shift[1])
			}
			continue
		}
		window, err := strconv.Atoi(found[7])
		if err != nil {
			continue // a reset has none
		}
		p := packet{sent: strings.HasPrefix(found[2], sender.String()+"."), window: window << scales[way]}
		p.at, _ = strconv.ParseFloat(found[1], 64)
		p.seq, _ = strconv.ParseUint(found[5], 10, 64)
		p.ack, _ = strconv.ParseUint(found[6], 10, 64)
		p.length, _ = strconv.Atoi(found[9])
		if !p.sent {
			way = ends{way.to, way.from}
		}
		connections[way] = append(connections[way], p)
		total[way] += p.length
	}
	var largest []packet
	bytes := -1
	for way, packets := range connections {
		if total[way] > bytes {
			largest, bytes = packets, total[way]
		}
	}
	for i := len(largest) - 1; i >= 0; i-- {
		largest[i].at -= largest[0].at
	}
	return largest
}

// excerpt are the lines that show how the window closes and opens again: the longest time
// with the smallest window after so many seconds, what came before, and what ended it.
func excerpt(packets []packet, from float64) string {
	packets = slices.DeleteFunc(slices.Clone(packets), func(p packet) bool { return p.at < from })
	smallest := -1
	for _, p := range packets {
		if !p.sent && (smallest < 0 || p.window < smallest) {
			smallest = p.window
		}
	}
	if smallest < 0 {
		return ""
	}
	closed, opened, longest := 0, 0, -1.0
	began := -1
	last := 0
	end := func(at int) {
		if began >= 0 && packets[at].at-packets[began].at > longest {
			closed, opened, longest = began, at, packets[at].at-packets[began].at
		}
		began = -1
	}
	for i, p := range packets {
		if p.sent {
			continue
		}
		if last = i; p.window != smallest {
			end(i)
		} else if began < 0 {
			began = i
		}
	}
	end(last)
	var lines []string
	skipped := 0
	for i, p := range packets {
		shown := i >= closed-6 && i < closed+3 || i >= max(closed+3, opened-2) && i < opened+4
		switch {
		case shown && skipped > 0:
			lines = append(lines, fmt.Sprintf("     ... %d more probes", skipped), p.String())
			skipped = 0
		case shown:
			lines = append(lines, p.String())
		case i > closed && i < opened && p.sent && p.length == 0:
			skipped++
		}
	}
	return strings.Join(lines, "\n")
}

func (p packet) String() string {
	switch {
	case p.sent && p.length == 0:
		return fmt.Sprintf("%8.3f  h1 > h3  no bytes", p.at)
	case p.sent:
		return fmt.Sprintf("%8.3f  h1 > h3  seq %9d  %6d bytes", p.at, p.seq, p.length)
	}
	return fmt.Sprintf("%8.3f  h3 > h1  ack %9d                window %8d", p.at, p.ack, p.window)
}

// capture has tcpdump write down the headers of what the host sends and receives on a port.
// read ends it, and gives what it saw.
func capture(ctx context.Context, lab *netlab.Lab, host *netlab.Host, port uint16) (read func() (string, error), err error) {
	dir, err := lab.TempDir()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "trace.pcap")
	cmd := host.Command(ctx, "tcpdump", "-i", host.Ifaces[0].Name, "-s", "100", "-B", "8192", "-Z", "root", "-U", "-w", file, "tcp", "port", strconv.Itoa(int(port)))
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// The header of the file is written when tcpdump listens.
	for {
		if info, err := os.Stat(file); err == nil && info.Size() > 0 {
			break
		}
		select {
		case <-cmd.Done():
			return nil, errors.Join(errors.New("tcpdump ended at once"), cmd.Wait())
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return func() (string, error) {
		if err := cmd.Signal(syscall.SIGTERM); err != nil {
			return "", err
		}
		if err := cmd.Wait(); err != nil {
			return "", err
		}
		text, err := host.Command(ctx, "tcpdump", "-n", "-tt", "-r", file).Output()
		return string(text), err
	}, nil
}
