package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pipeLimits reads the kernel's limits for pipes from files in dir.
type pipeLimits struct {
	dir string // /proc/sys/fs
}

// warning returns one line if the limits allow fewer or smaller pipes than wanted, otherwise
// "". Without pipes the relay uses buffers, which cost more CPU time. The limits hold for root
// too, because the relay gives up CAP_SYS_RESOURCE.
func (l pipeLimits) warning(pipes, size int) string {
	largest, err := l.read("pipe-max-size")
	if err != nil {
		return fmt.Sprintf("cannot read the limit for pipes; bulk transfer may cost more CPU time: %v", err)
	}
	if largest < int64(size) {
		return fmt.Sprintf("a pipe may hold only %d of the wanted %d bytes; bulk transfer will cost more CPU time: raise fs.pipe-max-size, e.g. sysctl -w fs.pipe-max-size=1048576", largest, size)
	}
	pages, err := l.read("pipe-user-pages-soft")
	if err != nil {
		return fmt.Sprintf("cannot read the limit for this user's pipes; bulk transfer may cost more CPU time: %v", err)
	}
	wanted := int64(pipes) * int64(size) / int64(os.Getpagesize())
	if pages != 0 && pages < wanted { // 0: no limit
		return fmt.Sprintf("this user's pipes may hold only %d of the wanted %d pages; bulk transfer on many connections will cost more CPU time: raise fs.pipe-user-pages-soft, e.g. sysctl -w fs.pipe-user-pages-soft=%d", pages, wanted, 2*wanted)
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
