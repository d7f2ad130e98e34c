#!/usr/bin/env bash
# Runs a command as root on a stock Debian kernel, in a throw-away virtual machine (QEMU, in
# software: no KVM needed). For what this machine's kernel lacks: netem, Open vSwitch.
#
#   mininet/vm.sh COMMAND [ARG ...]      e.g.  mininet/vm.sh mininet/topo.py --seconds 10
#
# The guest sees this machine's root file system read-only under a RAM overlay, so programs must be
# built and installed before. Nothing that it writes lasts, except below VM_OUT, a folder that is
# shared with it at the same path (default: a temporary one). The current folder is the guest's
# current folder, and the exit status is the command's. Open vSwitch is started when it is installed.
#
# VM_TIMEOUT seconds (default 600), VM_MEM (4G), VM_CPUS (2), VM_KERNEL (a Debian kernel package).
# It needs Debian or its kin; as root it installs QEMU, cpio and busybox when they are missing. A
# boot takes some 15 s, and programs run 10 to 20 times slower than outside: measure protocols
# there, not speed.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 2; }
command -v apt-get >/dev/null || { echo "vm.sh: takes a kernel from Debian's packages, and there is no apt-get here" >&2; exit 1; }
# What the cache holds is run as root, so nobody else may write it.
cache=${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/tprelay-vm
mkdir -p -m 700 "$cache"
if [ ! -O "$cache" ] || [ -n "$(find "$cache" -maxdepth 0 -perm /022)" ]; then
	echo "vm.sh: $cache: others may write it: remove it, or set XDG_CACHE_HOME" >&2
	exit 1
fi

need=()
command -v qemu-system-x86_64 >/dev/null || need+=(qemu-system-x86)
command -v cpio >/dev/null || need+=(cpio)
command -v modprobe >/dev/null || need+=(kmod)
[ -x /bin/busybox ] || need+=(busybox-static)
if [ ${#need[@]} -gt 0 ]; then
	[ "$(id -u)" = 0 ] || { echo "vm.sh: run as root: apt-get install --no-install-recommends ${need[*]}" >&2; exit 1; }
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
fi

kernel=${VM_KERNEL:-$(apt-cache depends linux-image-amd64 | awk '/Depends:/{print $2; exit}')}
[ -n "$kernel" ] || { echo "vm.sh: no kernel package found; run apt-get update, or set VM_KERNEL" >&2; exit 1; }
version=${kernel#linux-image-}

work=$(mktemp -d)
qemu=
# shellcheck disable=SC2317  # called by the trap
cleanup() {
	[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
out=${VM_OUT:-$work/out}
mkdir -p "$out"
out=$(cd "$out" && pwd)

# build_initrd makes, in the current folder, what the guest starts with: busybox, the modules to
# mount the shared file systems, and the script that does.
build_initrd() {
	mkdir -p ird/{bin,proc,sys,dev,mods,host,rw,root}
	cp /bin/busybox ird/bin/
	for m in virtio_pci 9p 9pnet_virtio overlay; do
		modprobe -d . -S "$version" --show-depends "$m" | awk '/^insmod/{print $2}'
	done | awk '!seen[$0]++' | while read -r ko; do
		cp "$ko" ird/mods/
		basename "$ko" >>ird/mods/order
	done
	cat >ird/init <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read -r m; do insmod /mods/$m; done </mods/order
nine() { mount -t 9p -o "$1,trans=virtio,version=9p2000.L,msize=524288" "$2" "$3"; }
mount -t tmpfs rw /rw; mkdir /rw/upper /rw/work
nine ro,cache=loose host /host
mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work overlay /root
cd /root
mount -t proc proc proc; mount -t sysfs sys sys; mount -t devtmpfs dev dev; mount -t cgroup2 cg sys/fs/cgroup
cwd=$(cat /proc/cmdline); cwd=${cwd##*vm_cwd=}; cwd=${cwd%% *}
mkdir -p dev/pts dev/shm; mount -t devpts pts dev/pts; mount -t tmpfs run run
# A current folder below /tmp must stay visible.
case $cwd in /tmp/*) ;; *) mount -t tmpfs tmp tmp ;; esac
mkdir -p lib/modules; nine ro,cache=loose modules lib/modules
out=$(cat /proc/cmdline); out=${out##*vm_out=}; out=${out%% *}
mkdir -p ".$out"; nine rw out ".$out"
hostname vm; ip link set lo up
# Not chroot: who enters another mount namespace, as Mininet's hosts do, would find themselves outside of it. The kernel's own
# threads share the root of process 1, and so find modprobe.
cd /
exec switch_root /root /bin/bash "$out/.vm-init"
INIT
	chmod +x ird/init
	(cd ird && find . | cpio -o -H newc 2>/dev/null | gzip -1) >initrd.gz
	rm -rf ird
}

if [ ! -f "$cache/$version/initrd.gz" ]; then
	echo "vm.sh: fetching $kernel" >&2
	mkdir "$work/kernel"
	(
		cd "$work/kernel"
		# As root, apt would fetch as a user of its own, who may not write here.
		apt-get -o APT::Sandbox::User=root download -qq "$kernel"
		dpkg -x "$kernel"_*.deb . && rm -- *.deb && depmod -b . "$version"
		build_initrd
	)
	rm -rf "${cache:?}/$version"
	mv "$work/kernel" "$cache/$version"
fi

rm -f "$out/.vm-status"
: >"$out/.vm-log"
{
	printf 'export PATH=%q HOME=%q VM_OUT=%q\ncd %q || exit 1\n' "$PATH:/usr/sbin:/sbin" "${HOME:-/root}" "$out" "$PWD"
	cat <<'START'
if [ -x /usr/share/openvswitch/scripts/ovs-ctl ] && modprobe openvswitch 2>/dev/null; then
	/usr/share/openvswitch/scripts/ovs-ctl --system-id=vm --no-monitor start >/run/ovs-start.log 2>&1 || cat /run/ovs-start.log
fi
START
	printf '%q ' "$@"
	echo
} >"$out/.vm-job"
cat >"$out/.vm-init" <<'INIT'
# Process 1 of the guest: runs the job, and turns the machine off.
out=${0%/*}
/bin/bash "$out/.vm-job" >"$out/.vm-log" 2>&1 </dev/null
echo $? >"$out/.vm-status"
sync
exec /bin/busybox poweroff -f
INIT
share() {
	printf -- '-fsdev local,id=%s,path=%s,security_model=none,multidevs=remap%s -device virtio-9p-pci,fsdev=%s,mount_tag=%s ' "$1" "$2" "$3" "$1" "$1"
}
# shellcheck disable=SC2046
timeout "${VM_TIMEOUT:-600}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp "${VM_CPUS:-2}" -m "${VM_MEM:-4G}" \
	-nographic -no-reboot -kernel "$cache/$version/boot/vmlinuz-$version" -initrd "$cache/$version/initrd.gz" \
	-append "console=ttyS0 quiet panic=-1 mitigations=off vm_out=$out vm_cwd=$PWD" \
	$(share host / ,readonly=on) $(share modules "$cache/$version/lib/modules" ,readonly=on) $(share out "$out" "") \
	</dev/null >"$work/console" 2>&1 &
qemu=$!
tail -n +1 -f "$out/.vm-log" --pid=$qemu 2>/dev/null || true
wait $qemu || true
qemu=
if [ ! -f "$out/.vm-status" ]; then
	echo "vm.sh: the command did not finish (VM_TIMEOUT is ${VM_TIMEOUT:-600} s); last console lines:" >&2
	tail -n 5 "$work/console" >&2
	exit 124
fi
exit "$(cat "$out/.vm-status")"
