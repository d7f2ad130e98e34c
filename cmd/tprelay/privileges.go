package main

import (
	"fmt"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/tprelay/tprelay/tproxy"
)

// capabilities returns the capabilities that relaying needs after the start: CAP_NET_ADMIN (or
// CAP_NET_RAW) for clients' addresses and for marks, and CAP_NET_BIND_SERVICE for clients'
// ports below 1024.
func (c *runCmd) capabilities() []cap.Value {
	first := c.Spoof.First(c.Mode.Mode)
	switch {
	case first == tproxy.LevelFull:
		return []cap.Value{transparency(), cap.NET_BIND_SERVICE}
	case first == tproxy.LevelIP, c.Mode.Mode == tproxy.TPROXY, c.Mark != 0:
		return []cap.Value{transparency()}
	}
	return nil
}

// transparency returns the capability for IP_TRANSPARENT and SO_MARK: CAP_NET_ADMIN, or
// CAP_NET_RAW if the process does not have it, as with Docker's default set. The kernel accepts
// either.
func transparency() cap.Value {
	if ok, err := cap.GetProc().GetFlag(cap.Permitted, cap.NET_ADMIN); err == nil && !ok {
		return cap.NET_RAW
	}
	return cap.NET_ADMIN
}

// keepOnly drops all capabilities except those in keep, on all threads, and sets no_new_privs,
// so that execve cannot give any back. It returns those that the process still has. It also
// clears the inheritable and ambient sets: a started program gets only what its SysProcAttr
// names.
func keepOnly(keep []cap.Value) (left []cap.Value, err error) {
	have, want := cap.GetProc(), cap.NewSet()
	for _, value := range keep {
		if ok, err := have.GetFlag(cap.Permitted, value); err != nil || !ok {
			continue
		}
		for _, flag := range []cap.Flag{cap.Permitted, cap.Effective} {
			if err := want.SetFlag(flag, true, value); err != nil {
				return nil, fmt.Errorf("keep %v: %w", value, err)
			}
		}
		left = append(left, value)
	}
	if err := want.SetProc(); err != nil {
		return nil, fmt.Errorf("give up privileges: capset: %w", err)
	}
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("give up privileges: no_new_privs: %w", err)
	}
	return left, nil
}

// become changes to the user name for good and keeps only the capabilities that opening
// sockets needs. It runs before any file is opened, so that logs and recordings belong to the
// user and can be reopened. It does nothing if the process is that user already, as after an
// upgrade.
func become(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return fmt.Errorf("--user %s: no such user", name)
		}
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return fmt.Errorf("--user %s: user number %q: %w", name, u.Uid, err)
	}
	if os.Getuid() == uid && os.Geteuid() == uid {
		return nil
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return fmt.Errorf("--user %s: group number %q: %w", name, u.Gid, err)
	}
	groups, err := groupsOf(u)
	if err != nil {
		return fmt.Errorf("--user %s: groups: %w", name, err)
	}
	if err := cap.SetGroups(gid, groups...); err != nil {
		return fmt.Errorf("--user %s: setgroups: %w; only root can change the user", name, err)
	}
	if err := cap.SetUID(uid); err != nil {
		return fmt.Errorf("--user %s: setuid: %w; only root can change the user", name, err)
	}
	if _, err := keepOnly([]cap.Value{transparency(), cap.NET_BIND_SERVICE}); err != nil {
		return err
	}
	// After a change of user /proc/self belongs to root, and the metric of open descriptors
	// could not read it.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("--user %s: PR_SET_DUMPABLE: %w", name, err)
	}
	return nil
}

func groupsOf(u *user.User) ([]int, error) {
	texts, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	var groups []int
	for _, text := range texts {
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		groups = append(groups, n)
	}
	return groups, nil
}
