package rules

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// stateDir is the directory of records, and this network namespace's record in it. What is
// there tells a program with all privileges what to change, so nobody else may have
// written it: the directory and the record belong to root or to the user that runs this
// program, nobody else may write them, and neither is a symbolic link. Files are opened
// relative to the directory that was checked.
type stateDir struct {
	path string
	fd   int
	name string // of the record
}

// openStateDir opens an existing directory. That it does not exist is an fs.ErrNotExist.
func openStateDir(path string) (*stateDir, error) {
	name, err := stateName()
	if err != nil {
		return nil, err
	}
	// Clean, as a slash at the end would have a link followed.
	path = filepath.Clean(path)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("state directory %s: not a directory, or a symbolic link; name the directory itself", path)
	} else if err != nil {
		return nil, fmt.Errorf("state directory %s: %w", path, err)
	}
	if err := trusted(fd, path); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("state directory %w", err)
	}
	return &stateDir{path, fd, name}, nil
}

func (d *stateDir) close() { unix.Close(d.fd) }

// trusted fails if others may have written the open file path.
func trusted(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s: belongs to user %d, who could have it change this host; chown it, or delete it if it is not ours", path, st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s: others may write it (mode %04o), and could have it change this host; check it, then chmod go-w", path, st.Mode&0o7777)
	}
	return nil
}

// read gives the record and its path.
func (d *stateDir) read() (text []byte, path string, err error) {
	path = filepath.Join(d.path, d.name)
	// Not blocking, should it be a FIFO.
	fd, err := unix.Openat(d.fd, d.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, path, fmt.Errorf("%s: is a symbolic link; delete it, it is not ours", path)
	} else if err != nil {
		return nil, path, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, path, err
	} else if !info.Mode().IsRegular() {
		return nil, path, fmt.Errorf("%s: not a file; delete it, it is not ours", path)
	}
	if err := trusted(fd, path); err != nil {
		return nil, path, err
	}
	text, err = io.ReadAll(f)
	return text, path, err
}

// write replaces the record; a reader sees the old one or the new one, whole.
func (d *stateDir) write(text []byte) error {
	next := d.name + ".new"
	// One that was left, by a program that was killed, may be anything.
	if err := unix.Unlinkat(d.fd, next, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: %w", next, err)
	}
	fd, err := unix.Openat(d.fd, next, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", next, err)
	}
	f := os.NewFile(uintptr(fd), next)
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return unix.Renameat(d.fd, next, d.fd, d.name)
}

func (d *stateDir) remove() error { return unix.Unlinkat(d.fd, d.name, 0) }

// lockState keeps two runs of this program from undoing each other's work. It makes the
// directory if there is none.
//
// The lock is on the directory, which the last one to leave removes. Whoever waited for it
// then has a lock on a directory that is no more, while the next one makes a new directory
// and locks that; so it counts only while the path still names the directory.
func lockState(path string) (unlock func(), err error) {
	for {
		if err := os.MkdirAll(path, 0o755); errors.Is(err, fs.ErrExist) {
			// MkdirAll says so, too, when the directory was removed between its two looks.
			if info, statErr := os.Lstat(path); errors.Is(statErr, fs.ErrNotExist) || statErr == nil && info.IsDir() {
				continue
			}
			return nil, fmt.Errorf("state directory: %w", err)
		} else if err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
		d, err := openStateDir(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed in between
		} else if err != nil {
			return nil, err
		}
		if err := flock(d.fd); err != nil {
			d.close()
			return nil, fmt.Errorf("lock %s: %w", d.path, err)
		}
		if d.named() {
			return d.close, nil
		}
		d.close()
	}
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// named says whether the path still names this directory.
func (d *stateDir) named() bool {
	var here, there unix.Stat_t
	return unix.Fstat(d.fd, &here) == nil && unix.Lstat(d.path, &there) == nil && here.Dev == there.Dev && here.Ino == there.Ino
}
