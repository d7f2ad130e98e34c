package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pipeLimits are what the kernel allows of pipes, as files under Dir.
type pipeLimits struct {
	dir string // /proc/sys/fs
}

// warning says in one line why pipes will be fewer or smaller than wanted, or
// nothing. The relay works without them, through buffers, at a higher price. As it has
// given up the privilege to exceed a user's share, that share binds root's pipes too.
func (l pipeLimits) warning(pipes, size int) string {
	largest, err := l.read("pipe-max-size")
	if err != nil {
		return fmt.Sprintf("the limit for pipes is unknown, bulk transfer may cost more CPU: %v", err)
	}
	if largest < int64(size) {
		return fmt.Sprintf("pipes may hold only %d of the %d bytes wanted, bulk transfer will cost more CPU: raise fs.pipe-max-size, e.g. sysctl -w fs.pipe-max-size=1048576", largest, size)
	}
	pages, err := l.read("pipe-user-pages-soft")
	if err != nil {
		return fmt.Sprintf("the limit for this user's pipes is unknown, bulk transfer may cost more CPU: %v", err)
	}
	wanted := int64(pipes) * int64(size) / int64(os.Getpagesize())
	if pages != 0 && pages < wanted { // 0: no limit
		return fmt.Sprintf("this user's pipes may hold only %d of the %d pages wanted, bulk transfer on many connections will cost more CPU: raise fs.pipe-user-pages-soft, e.g. sysctl -w fs.pipe-user-pages-soft=%d", pages, wanted, 2*wanted)
	}
	return ""
}

func (l pipeLimits) read(name string) (int64, error) {
	path := filepath.Join(l.dir, name)
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return n, nil
}
