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

// stateDir is the directory of records, and the record of this network namespace in it. A
// program with all privileges acts on the record, so no other user may have written it: the
// directory and the record must belong to root or to the user that runs this program, must not
// be writable by others, and must not be symbolic links. Files are opened relative to the
// directory that was checked.
type stateDir struct {
	path string
	fd   int
	name string // of the record
}

// openStateDir opens an existing directory. If there is none, the error is fs.ErrNotExist.
func openStateDir(path string) (*stateDir, error) {
	name, err := stateName()
	if err != nil {
		return nil, err
	}
	// Clean, because open would follow a symbolic link that ends in a slash.
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

// trusted returns an error if other users can have written the open file path.
func trusted(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s: belongs to user %d, who could make this command change the host; chown it, or delete it if tprelay did not write it", path, st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s: other users can write it (mode %04o) and could make this command change the host; check it, then chmod go-w", path, st.Mode&0o7777)
	}
	return nil
}

// read returns the record and its path.
func (d *stateDir) read() (text []byte, path string, err error) {
	path = filepath.Join(d.path, d.name)
	// O_NONBLOCK in case it is a FIFO.
	fd, err := unix.Openat(d.fd, d.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, path, fmt.Errorf("%s: is a symbolic link; delete it, tprelay did not write it", path)
	} else if err != nil {
		return nil, path, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, path, err
	} else if !info.Mode().IsRegular() {
		return nil, path, fmt.Errorf("%s: not a file; delete it, tprelay did not write it", path)
	}
	if err := trusted(fd, path); err != nil {
		return nil, path, err
	}
	text, err = io.ReadAll(f)
	return text, path, err
}

// write replaces the record. A reader sees either the old or the new record, complete.
func (d *stateDir) write(text []byte) error {
	next := d.name + ".new"
	// A killed process may have left an incomplete file.
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

// lockState makes sure that only one apply or remove runs at a time. It creates the directory
// if there is none.
//
// The lock is on the directory, and remove deletes an empty directory. A process that waited
// for the lock then has a lock on a deleted directory, while the next process creates a new
// directory and locks that one. So the lock counts only if the path still names the directory.
func lockState(path string) (unlock func(), err error) {
	for {
		if err := os.MkdirAll(path, 0o755); errors.Is(err, fs.ErrExist) {
			// MkdirAll also returns ErrExist if the directory is removed while it runs.
			if info, statErr := os.Lstat(path); errors.Is(statErr, fs.ErrNotExist) || statErr == nil && info.IsDir() {
				continue
			}
			return nil, fmt.Errorf("state directory: %w", err)
		} else if err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
		d, err := openStateDir(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
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

// named reports whether the path still names this directory.
func (d *stateDir) named() bool {
	var here, there unix.Stat_t
	return unix.Fstat(d.fd, &here) == nil && unix.Lstat(d.path, &there) == nil && here.Dev == there.Dev && here.Ino == there.Ino
}
