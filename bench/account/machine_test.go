package account

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMachineCountsAProcessThatHasEnded(t *testing.T) {
	if _, err := os.Stat(cpuacct + "/release_agent"); err != nil {
		t.Skip("no root control group here, and without it those that ended are lost")
	}
	before, err := Machine()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	after, err := Machine()
	if err != nil {
		t.Fatal(err)
	}
	// The process's own figure is rounded to ticks, by as many as it has parts.
	used := cmd.ProcessState.SystemTime() + cmd.ProcessState.UserTime() - 20*time.Millisecond
	if after-before < used {
		t.Errorf("the process used %v, the machine %v", used, after-before)
	}
}

func TestKernelIsAPartOfTheMachine(t *testing.T) {
	kernel, err := Kernel()
	if err != nil {
		t.Fatal(err)
	}
	machine, err := Machine()
	if err != nil {
		t.Fatal(err)
	}
	if kernel < 0 || kernel > machine {
		t.Errorf("the kernel's threads used %v of the machine's %v", kernel, machine)
	}
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

func TestNoSuchProcessHasMemoryOrDescriptors(t *testing.T) {
	if _, err := Resident(math.MaxInt32); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("memory: %v", err)
	}
	if _, err := Descriptors(math.MaxInt32); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("descriptors: %v", err)
	}
}
