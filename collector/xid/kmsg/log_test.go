// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/collector/model"
)

const patience = 30 * time.Second

// line returns a record of the kernel with an XID.
func line(sequence, code int) string {
	return fmt.Sprintf("3,%d,1000,-;NVRM: Xid (PCI:0000:18:00): %d, test\n", sequence, code)
}

// following is a goroutine that runs Follow.
type following struct {
	codes chan int64
	done  chan error
	stop  context.CancelFunc
}

func follow(t *testing.T, l *Log) *following {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &following{codes: make(chan int64), done: make(chan error, 1), stop: stop}
	go func() {
		f.done <- l.Follow(ctx, func(x model.KernelXID) {
			select {
			case f.codes <- x.Code:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(stop)
	return f
}

func (f *following) expect(t *testing.T, want ...int64) {
	t.Helper()
	var got []int64
	for range want {
		select {
		case code := <-f.codes:
			got = append(got, code)
		case err := <-f.done:
			t.Fatalf("Follow returned %v after %v; want %v", err, got, want)
		case <-time.After(patience):
			t.Fatalf("timed out: got %v, want %v", got, want)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func (f *following) end(t *testing.T) {
	t.Helper()
	f.stop()
	select {
	case err := <-f.done:
		if err != nil {
			t.Errorf("Follow returned %v", err)
		}
	case <-time.After(patience):
		t.Error("Follow does not end with its context")
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func openFile(t *testing.T, content string) (string, *Log) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kmsg")
	appendTo(t, path, content)
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	l.poll = time.Millisecond
	return path, l
}

// Follow delivers the records that the kernel writes after Open, in pieces of any size, and
// through truncation and replacement of the file.
func TestFollowFile(t *testing.T) {
	path, l := openFile(t, line(1, 1)+line(2, 2)[:20])
	appendTo(t, path, line(2, 2)[20:]) // its start precedes Open
	appendTo(t, path, line(3, 3))      // between Open and Follow
	f := follow(t, l)
	f.expect(t, 3)
	appendTo(t, path, line(4, 4)+"nonsense\n SUBSYSTEM=pci\n"+line(5, 5)+line(6, 6)[:30])
	f.expect(t, 4, 5)
	appendTo(t, path, line(6, 6)[30:]+"12,7,1,-;NVRM: Xid (PCI:0000:18:00): 7, a program's\n"+strings.Repeat("x", 3*bufferSize)+"\n"+line(8, 8))
	f.expect(t, 6, 8)

	if err := os.WriteFile(path, []byte(line(9, 9)), 0o600); err != nil { // truncates
		t.Fatal(err)
	}
	f.expect(t, 9)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path+".1", line(10, 10)) // the writer still has it open
	f.expect(t, 10)
	appendTo(t, path, line(11, 11))
	f.expect(t, 11)
	appendTo(t, path, line(12, 12))
	f.expect(t, 12)
	f.end(t)
	if l.Lost() != 0 {
		t.Errorf("%d records lost", l.Lost())
	}
}

// Records that are written between the last read of a file and its replacement are
// delivered too.
func TestFollowReplacedFile(t *testing.T) {
	path, l := openFile(t, line(1, 1))
	read, renamed := l.read, false
	l.read = func(b []byte) (int, error) {
		n, err := read(b)
		if n == 0 && !renamed { // at the end
			renamed = true
			appendTo(t, path, line(2, 2))
			if err := os.Rename(path, path+".1"); err != nil {
				t.Error(err)
			}
			appendTo(t, path, line(3, 3))
		}
		return n, err
	}
	f := follow(t, l)
	f.expect(t, 2, 3)
	f.end(t)
}

// The device returns one record per read. It returns EPIPE if it has overwritten records,
// and EINVAL for a record that is too long.
func TestFollowDevice(t *testing.T) {
	type step struct {
		text string
		err  error
	}
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		steps []step
		want  []int64
		lost  uint64
	}{
		"records": {[]step{{line(1, 31), nil}, {"6,2,1,-;else\n KEY=x\n", nil}, {line(3, 79), nil}}, []int64{31, 79}, 0},
		"overwritten": {
			[]step{{line(1, 31), nil}, {"", syscall.EPIPE}, {line(11, 79), nil}, {line(12, 13), nil}},
			[]int64{31, 79, 13}, 9,
		},
		"overwritten before the first": {[]step{{"", syscall.EPIPE}, {line(11, 79), nil}}, []int64{79}, 1},
		"overwritten twice": {
			[]step{{line(1, 31), nil}, {"", syscall.EPIPE}, {line(3, 79), nil}, {"", syscall.EPIPE}, {line(5, 79), nil}},
			[]int64{31, 79, 79}, 2,
		},
		"too long":               {[]step{{line(1, 31), nil}, {"", syscall.EINVAL}, {line(3, 79), nil}}, []int64{31, 79}, 1},
		"interrupted, not ready": {[]step{{"", syscall.EINTR}, {"", syscall.EAGAIN}, {line(3, 79), nil}}, []int64{79}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			_, l := openFile(t, "")
			l.device = true
			next := 0
			l.read = func(b []byte) (int, error) {
				if next == len(tc.steps) {
					return 0, broken
				}
				s := tc.steps[next]
				next++
				return copy(b, s.text), s.err
			}
			f := follow(t, l)
			f.expect(t, tc.want...)
			if err := <-f.done; !errors.Is(err, broken) {
				t.Errorf("Follow returned %v", err)
			}
			if l.Lost() != tc.lost {
				t.Errorf("%d records lost, want %d", l.Lost(), tc.lost)
			}
		})
	}
	t.Run("always refused", func(t *testing.T) {
		_, l := openFile(t, "")
		l.device = true
		l.read = func([]byte) (int, error) { return 0, syscall.EINVAL }
		f := follow(t, l)
		if err := <-f.done; !errors.Is(err, syscall.EINVAL) {
			t.Errorf("Follow returned %v", err)
		}
	})
}

// A blocked read of the real device ends with the context.
func TestFollowKernel(t *testing.T) {
	l, err := Open("/dev/kmsg")
	if err != nil {
		t.Skipf("the kernel log is unreadable: %v", err)
	}
	defer l.Close()
	if !l.device {
		t.Fatal("/dev/kmsg is not recognized as a device")
	}
	f := follow(t, l)
	select {
	case code := <-f.codes:
		t.Errorf("delivered XID %d; does this machine have a GPU?", code)
	case err := <-f.done:
		t.Errorf("Follow returned %v", err)
	case <-time.After(100 * time.Millisecond): // the read blocks
	}
	f.end(t)
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"absent": "opening the kernel log: ", "fifo": "is neither a device nor a file", "": "is neither a device nor a file",
	} {
		if l, err := Open(filepath.Join(dir, path)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", path, l, err)
		}
	}
}
