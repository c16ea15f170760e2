package vm

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// guestTimeout bounds the whole life of a virtual machine. Under emulation it boots in 15 s on an idle machine and
// runs programs ten to twenty times slower.
const guestTimeout = 22 * time.Minute

// bootSilence is how long the kernel may say nothing at all: a hypervisor that hangs does so for ever.
const bootSilence = time.Minute

// guestUnit runs the tests inside. Its output goes to the second serial line, which the kernel does not write to, and
// the machine powers off when it ends, whichever way.
const guestUnit = `[Unit]
Description=The tests inside the virtual machine
After=basic.target dbus.socket
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStartPre=/bin/mkdir -p /run/test
ExecStartPre=/bin/mount -o ro /dev/vdb /run/test
ExecStart=/run/test/run
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
`

// RunGuest boots a virtual machine and runs the shell script in it, with the files of dir in /run/test. It returns
// what the script printed.
//
// The kernel is that of bookworm (6.1): newer ones die under software emulation. KVM is used only where
// SUPERVISOR_TEST_KVM=1 asks for it, because a /dev/kvm that is there may still hang for ever.
func RunGuest(ctx context.Context, dir, script string) (string, error) {
	kernel, err := Root("bookworm", "kernel")
	if err != nil {
		return "", err
	}
	image, err := guestImage(kernel)
	if err != nil {
		return "", err
	}
	work, err := os.MkdirTemp("", "supervisor-guest-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := os.WriteFile(filepath.Join(dir, "run"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		return "", err
	}
	disk := filepath.Join(work, "test.img")
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-d", dir, disk, "256M").CombinedOutput(); err != nil {
		return "", fmt.Errorf("make disk: %w: %s", err, out)
	}
	console, output := filepath.Join(work, "console"), filepath.Join(work, "output")
	ctx, cancel := context.WithTimeoutCause(ctx, guestTimeout, fmt.Errorf("it was still running after %s", guestTimeout))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	silence := time.AfterFunc(bootSilence, func() {
		if info, err := os.Stat(console); err != nil || info.Size() == 0 {
			fail(fmt.Errorf("its kernel said nothing for %s (with SUPERVISOR_TEST_KVM=1, /dev/kvm may not work here)", bootSilence))
		}
	})
	defer silence.Stop()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append(accelerator(), "-smp", "1", "-m", "1024",
		"-kernel", one(kernel, "boot/vmlinuz-*"), "-initrd", one(kernel, "boot/initrd.img-*"),
		"-append", "console=ttyS0 root=/dev/vda rw panic=-1 systemd.show_status=0 audit=0 mitigations=off",
		"-drive", "file="+image+",if=virtio,format=raw,snapshot=on", "-drive", "file="+disk+",if=virtio,format=raw,snapshot=on",
		"-serial", "file:"+console, "-serial", "file:"+output, "-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot")...)
	said, runErr := cmd.CombinedOutput()
	printed, err := os.ReadFile(output)
	if ctx.Err() != nil {
		runErr = context.Cause(ctx)
	}
	text := strings.ReplaceAll(string(printed), "\r", "")
	if runErr = errors.Join(runErr, err); runErr != nil || text == "" {
		log, _ := os.ReadFile(console)
		const most = 8000
		return text, fmt.Errorf("virtual machine: %w\n%s\nend of its console:\n%s", runErr, said, log[max(0, len(log)-most):])
	}
	return text, nil
}

func accelerator() []string {
	if os.Getenv("SUPERVISOR_TEST_KVM") == "1" {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,thread=single"}
}

// guestImage returns a bootable disk image with trixie's user land and the kernel's modules. It is cached beside the
// roots, under a name that changes with either of them and with the unit.
func guestImage(kernel string) (string, error) {
	root, err := Root("trixie", "base")
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("guest-%s-%s-%08x.img", suffix(root), suffix(kernel), crc32.ChecksumIEEE([]byte(guestUnit)))
	image := filepath.Join(filepath.Dir(root), name)
	if exists(image) {
		return image, nil
	}
	old, _ := filepath.Glob(filepath.Join(filepath.Dir(root), "guest-*"))
	for _, path := range old {
		os.RemoveAll(path)
	}
	tree, err := os.MkdirTemp(filepath.Dir(root), "guest-tree-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tree)
	script := `
cp -a "$1"/. "$3"/
mkdir -p "$3/lib/modules" && cp -a "$2"/lib/modules/. "$3/lib/modules/"
cat > "$3/etc/systemd/system/guest.service"
mkdir -p "$3/etc/systemd/system/multi-user.target.wants"
ln -s ../guest.service "$3/etc/systemd/system/multi-user.target.wants/guest.service"
mke2fs -q -t ext4 -d "$3" "$4.new" 2G
mv "$4.new" "$4"
`
	cmd := exec.Command("sh", "-ec", script, "sh", root, kernel, tree, image)
	cmd.Stdin = strings.NewReader(guestUnit)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make guest image: %w: %s", err, out)
	}
	return image, nil
}

func suffix(root string) string { return root[strings.LastIndexByte(root, '-')+1:] }

// one returns the only file that matches, or the pattern itself for the error message of whoever opens it.
func one(dir, pattern string) string {
	found, _ := filepath.Glob(filepath.Join(dir, pattern))
	if len(found) == 0 {
		return filepath.Join(dir, pattern)
	}
	return found[len(found)-1]
}
