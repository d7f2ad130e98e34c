package netlab

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// tapDevice is what makes TAP devices.
const tapDevice = "/dev/net/tun"

// tapQueue is how many frames a TAP device holds until they are read: some
// milliseconds of small ones at 10 Gbit/s. What exceeds it the kernel drops.
const tapQueue = 16384

// noTAP says that there can be no TAP devices here.
type noTAP struct{ err error }

func (e *noTAP) Error() string { return "open " + tapDevice + ": " + e.err.Error() }

// openTAP makes a TAP device in the network namespace of the calling thread. It
// lives as long as the descriptor, which does not block. Each frame is preceded
// by a virtio_net_hdr, and may be of 64 KiB and without checksums, as on a veth.
func openTAP(name string) (fd int, err error) {
	fd, err = unix.Open(tapDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, &noTAP{err}
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	req, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return -1, fmt.Errorf("%s: TUNSETIFF: %w", tapDevice, err)
	}
	// Where the kernel refuses, frames come cut and summed: slower, but right.
	_ = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6|unix.TUN_F_TSO_ECN)
	return fd, nil
}

// setCarrier tells the host of a TAP device whether its cable is plugged in.
func setCarrier(fd int, on bool) error {
	carrier := 0
	if on {
		carrier = 1
	}
	return unix.IoctlSetPointerInt(fd, unix.TUNSETCARRIER, carrier)
}
