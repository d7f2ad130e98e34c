package procstat

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// threadTime is what the calling thread has used, by another way; without end where the kernel does
// not tell.
func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return math.MaxInt64
	}
	return time.Duration(ts.Nano())
}

func TestTimeOfEachThreadCounts(t *testing.T) {
	const work = 50 * time.Millisecond
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	done, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	for range 2 {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for threadTime() < work {
			}
			done <- struct{}{}
			<-release // so that the thread lives on
		}()
	}
	<-done
	<-done
	// A thread's last tick may be missing, and a thread may have had a past.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		after, err := CPU(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after-before >= work {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("two threads used %v each, together %v were counted", work, after-before)
		}
	}
}

func TestAnotherProcessIsRead(t *testing.T) {
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		sleep.Process.Kill()
		sleep.Wait()
	}()
	// What it used to start counts once it has left its CPU.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		used, err := CPU(sleep.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if used > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a program that has started has used no time")
		}
	}
}

func TestAProcessThatDoesNotExistIsAnError(t *testing.T) {
	const nobody = math.MaxInt32
	if _, err := CPU(nobody); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("CPU time: %v", err)
	}
	if _, err := Resident(nobody); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("memory: %v", err)
	}
	if _, err := Descriptors(nobody); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("descriptors: %v", err)
	}
}

// busy runs a program that uses CPU time, until it has ended, and returns how much at least: the
// program's own figure is rounded to ticks, by as many as it has parts.
func busy(t *testing.T) time.Duration {
	t.Helper()
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.SystemTime() + cmd.ProcessState.UserTime() - 20*time.Millisecond
}

func TestMachineCountsAProcessThatHasEnded(t *testing.T) {
	read := func() (time.Duration, error) { return unified("/sys/fs/cgroup") }
	if _, err := read(); err != nil {
		read = func() (time.Duration, error) { return cpuacct("/sys/fs/cgroup/cpuacct") }
	}
	if _, err := read(); err != nil {
		t.Skip("no root control group here, and without it processes that have ended are lost")
	}
	before, err := read()
	if err != nil {
		t.Fatal(err)
	}
	used := busy(t)
	after, err := read()
	if err != nil || after-before < used {
		t.Errorf("the process used %v, the machine %v; %v", used, after-before, err)
	}
	if machine, err := Machine(); err != nil || machine < after {
		t.Errorf("the machine: %v, %v; its control groups before: %v", machine, err, after)
	}
}

// TestKernelIsTheSumOfItsThreads finds the kernel's threads by another way, and adds up what
// /proc/PID/schedstat says of each. There are none in a PID namespace.
func TestKernelIsTheSumOfItsThreads(t *testing.T) {
	for deadline := time.Now().Add(time.Minute); ; {
		before := kernelThreads(t)
		kernel, err := Kernel()
		if err != nil {
			t.Fatal(err)
		}
		after := kernelThreads(t)
		if !slices.Equal(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after))) && time.Now().Before(deadline) {
			continue // the kernel starts and ends threads as it needs them
		}
		var least, most time.Duration
		for pid, used := range after {
			least, most = least+before[pid], most+used
		}
		if kernel < least || kernel > most {
			t.Errorf("%v, want %v to %v, which %d threads used", kernel, least, most, len(after))
		}
		return
	}
}

// kernelThreads gives what each thread of the kernel has used. They have the flag PF_KTHREAD, the
// seventh field after the name in /proc/PID/stat.
func kernelThreads(t *testing.T) map[string]time.Duration {
	t.Helper()
	const kthread = 0x00200000
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	threads := map[string]time.Duration{}
	for _, path := range paths {
		stat, err := os.ReadFile(path + "/stat")
		if err != nil {
			continue // it has ended
		}
		var flags, used int64
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if flags, err = strconv.ParseInt(fields[6], 10, 64); err != nil {
			t.Fatal(err)
		}
		if flags&kthread == 0 {
			continue
		}
		schedstat, err := os.ReadFile(path + "/schedstat")
		if err != nil {
			continue
		}
		if _, err := fmt.Sscan(string(schedstat), &used); err != nil {
			t.Fatal(err)
		}
		threads[path] = time.Duration(used)
	}
	return threads
}

func TestMemoryThatIsTouchedIsResident(t *testing.T) {
	const size = 64 << 20
	before, err := Resident(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		block[i] = 1
	}
	after, err := Resident(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after-before < size/2 || block[4096] != 1 { // some of it may have been there before
		t.Errorf("%d bytes, then %d", before, after)
	}
}

func TestDescriptorsAreCounted(t *testing.T) {
	before, err := Descriptors(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	var files [10]*os.File
	for i := range files {
		if files[i], err = os.Open("/dev/null"); err != nil {
			t.Fatal(err)
		}
		defer files[i].Close()
	}
	after, err := Descriptors(os.Getpid())
	if err != nil || after != before+len(files) {
		t.Errorf("%d, then %d, %v", before, after, err)
	}
}

func TestDescriptorLimitIsTheSoftOne(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if got, err := DescriptorLimit(os.Getpid()); err != nil || uint64(got) != min(limit.Cur, math.MaxInt32) {
		t.Errorf("%d, %v, want %d", got, err, limit.Cur)
	}
}

func TestStealIsAShareOfAllTime(t *testing.T) {
	between := Steal{60, 960}.Minus(Steal{40, 860})
	if share := between.Share(); share != 0.2 {
		t.Errorf("20 of 100 s were stolen, it says %g", share)
	}
	if share := between.Plus(Steal{0, 100}).Share(); share != 0.1 {
		t.Errorf("20 of 200 s were stolen, it says %g", share)
	}
	if share := between.Minus(between).Share(); share != 0 {
		t.Errorf("of no time at all %g were stolen", share)
	}
	now, err := Stolen()
	if err != nil || now.total <= 0 || now.stolen < 0 || now.stolen >= now.total {
		t.Errorf("%+v, %v", now, err)
	}
}
