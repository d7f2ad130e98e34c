package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker in the environment tells the program that it was started by Enter.
const marker = "NETLAB_ENTERED"

// Enter enables the process to build a lab. Call it first in main or in TestMain, before anything
// that must not happen twice.
//
// With CAP_SYS_ADMIN and CAP_NET_ADMIN, as root has them, it does nothing. Otherwise it starts the
// program again, with the same arguments and environment, in a user namespace in which the caller
// is root, with its own network (a loopback interface only) and its own mounts. In the first
// process Enter then does not return: it passes signals on and exits like the second one, with 128
// plus the signal's number if a signal ended that. The second process dies with the first.
//
// The user namespace has one user and one group, number 0. Files of other users seem to belong to
// nobody, and programs cannot change their user.
//
// Enter locks the calling goroutine, which should be the main one, to the first thread of the
// process; [Host.Enter] explains why no host may have that thread.
//
// The error is one line that says what to do.
func Enter() error {
	entered := os.Getenv(marker) != ""
	os.Unsetenv(marker) // programs that this process starts must not see it
	keepFirstThread()
	if entered {
		// Some systems grant the namespace and refuse its use, so it is tried.
		if err := linkUp("lo"); err != nil {
			return fmt.Errorf("netlab: user namespace: set lo up: %w; %s", err, remedy())
		}
		return nil
	}
	able, err := capable(unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN)
	if err != nil {
		return fmt.Errorf("netlab: read the capabilities: %w", err)
	}
	if able {
		return nil
	}
	return startAnew()
}

// keepFirstThread locks the main goroutine to the first thread, so that no goroutine that enters a
// host runs on it. Any other thread ends with such a goroutine; the first one cannot end and would
// stay in the host, and with it /proc/self.
func keepFirstThread() {
	if unix.Gettid() == unix.Getpid() {
		runtime.LockOSThread()
	}
}

// startAnew returns only if the program could not be started.
func startAnew() error {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	// The child dies with the thread that started it, so that thread must stay.
	runtime.LockOSThread()
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		runtime.UnlockOSThread()
		return fmt.Errorf("netlab: new user namespace: %w; %s", err, remedy())
	}
	go func() {
		for s := range signals {
			if (s == syscall.SIGINT || s == syscall.SIGQUIT) && foreground() {
				continue // typed at the terminal: the child got it too
			}
			cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case !errors.As(err, &exit):
		fmt.Fprintf(os.Stderr, "netlab: wait for the program in its user namespace: %v\n", err)
	case exit.ExitCode() >= 0:
		os.Exit(exit.ExitCode())
	default:
		os.Exit(128 + int(exit.Sys().(syscall.WaitStatus).Signal()))
	}
	os.Exit(1)
	return nil
}

// foreground reports whether the terminal sends its signals to this process group.
func foreground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// capable reports whether all of these capabilities are in effect.
func capable(caps ...uint) (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, err
	}
	for _, c := range caps {
		if data[c/32].Effective&(1<<(c%32)) == 0 {
			return false, nil
		}
	}
	return true, nil
}

// ErrNotRoot says that something needs the machine's root: it has to become other users, which a
// user namespace with one user does not allow.
var ErrNotRoot = errors.New("needs root, not a user namespace")

// OtherUsers returns nil if this process can start programs as any other user: it is root, and not
// in a user namespace that has no other users, as [Enter] makes them. Otherwise the error is
// [ErrNotRoot].
func OtherUsers() error {
	users, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	// One line for each range: the first user in here, who that is outside, how many there are.
	if f := strings.Fields(string(users)); os.Geteuid() != 0 || len(f) == 3 && f[2] == "1" {
		return ErrNotRoot
	}
	return nil
}

// remedy returns advice about what may prevent user namespaces on this system.
func remedy() string {
	for _, block := range []struct{ file, value, remedy string }{
		{"kernel/apparmor_restrict_unprivileged_userns", "1", "run as root, or: sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
		{"kernel/unprivileged_userns_clone", "0", "run as root, or: sysctl kernel.unprivileged_userns_clone=1"},
		{"user/max_user_namespaces", "0", "run as root, or: sysctl user.max_user_namespaces=1000"},
	} {
		if b, err := os.ReadFile("/proc/sys/" + block.file); err == nil && strings.TrimSpace(string(b)) == block.value {
			return block.remedy
		}
	}
	return "run as root, or where user namespaces are allowed to ordinary users"
}
