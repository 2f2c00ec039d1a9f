// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/poll"
)

// jobDir is a directory of job files with its own clock. Files are written at the
// time of that clock.
type jobDir struct {
	t     *testing.T
	files *jobFiles
	clock time.Time
}

func newJobDir(t *testing.T) *jobDir {
	d := &jobDir{t: t, files: newJobFiles(t.TempDir()), clock: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	d.files.now = func() time.Time { return d.clock }
	return d
}

func (d *jobDir) path(name string) string { return filepath.Join(d.files.dir, name) }

func (d *jobDir) write(name, content string) {
	d.t.Helper()
	if err := os.WriteFile(d.path(name), []byte(content), 0o644); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Chtimes(d.path(name), d.clock, d.clock); err != nil {
		d.t.Fatal(err)
	}
}

// read returns the holds as "device: job", when to read again, and the problems.
func (d *jobDir) read() ([]string, time.Duration, []Problem) {
	d.t.Helper()
	found, again, err := d.files.read(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	return texts(found.holds), again, found.problems
}

func (d *jobDir) want(when string, want ...string) {
	d.t.Helper()
	if got, _, _ := d.read(); !slices.Equal(got, want) {
		d.t.Errorf("%s: %q, want %q", when, got, want)
	}
}

func texts(holds []Hold) []string {
	holds = slices.SortedFunc(slices.Values(holds), compareHolds)
	var all []string
	for _, h := range holds {
		text := h.Device.String() + ": " + h.Job.ID
		if h.Claimed {
			text += "?"
		}
		all = append(all, text)
	}
	return all
}

func TestJobFiles(t *testing.T) {
	d := newJobDir(t)
	d.write("0", "41\n42\n")
	d.write("10", "43\r\n\n  \n43\nrun of 7/8 \"x\"\n")
	d.write("2", "")
	d.write("3.0", "44\n")
	d.write("3.10", "45\n46\n")
	// dcgm-exporter compares names with label values as texts.
	for _, name := range []string{"README", ".3.swp", "01", "1.", ".5", "1.2.3", "-1", "1e5", "4294967296", "MIG-265a219d-a49f-578a-825d-222c72699c16"} {
		d.write(name, "47\n")
	}
	d.clock = d.clock.Add(time.Minute)

	found, again, err := d.files.read(context.Background())
	if err != nil || again != 0 || len(found.problems) != 0 {
		t.Errorf("again after %v, problems %v, %v", again, found.problems, err)
	}
	want := []string{
		"GPU 0: 41", "GPU 0: 42", "GPU 10: 43", `GPU 10: run of 7/8 "x"`,
		"GPU 3 instance 0: 44", "GPU 3 instance 10: 45", "GPU 3 instance 10: 46",
	}
	if got := texts(found.holds); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if !found.found {
		t.Error("not found")
	}
}

// TestPartialFiles imitates a prolog that truncates a file and then writes to it.
func TestPartialFiles(t *testing.T) {
	d := newJobDir(t)
	d.write("0", "41\n")
	d.want("complete", "GPU 0: 41")

	d.write("0", "")
	d.want("truncated to zero", "GPU 0: 41")
	d.write("0", "4")
	if got, again, _ := d.read(); !slices.Equal(got, []string{"GPU 0: 41"}) || again != rereadAfter {
		t.Errorf("truncated: %q, again after %v", got, again)
	}
	d.write("0", "42\n")
	d.want("complete again", "GPU 0: 42")

	// A new, truncated file has no jobs.
	d.write("1", "4")
	d.want("new and truncated", "GPU 0: 42")
	d.write("1", "43")
	d.want("new, not settled", "GPU 0: 42")
	d.clock = d.clock.Add(settleAfter)
	d.want("settled without a newline", "GPU 0: 42", "GPU 1: 43")

	// An empty file and a removed file have no jobs.
	d.write("0", "")
	d.want("truncated to zero", "GPU 0: 42", "GPU 1: 43")
	d.clock = d.clock.Add(settleAfter)
	d.want("empty", "GPU 1: 43")
	if err := os.Remove(d.path("1")); err != nil {
		t.Fatal(err)
	}
	d.want("removed")
	// A new file does not inherit the jobs of a removed one.
	d.write("1", "4")
	d.want("new again")
}

// TestNeverComplete checks that the wait for a complete file is bounded.
func TestNeverComplete(t *testing.T) {
	d := newJobDir(t)
	d.write("0", "41\n")
	d.want("complete", "GPU 0: 41")
	for i := 0; ; i++ {
		d.write("0", fmt.Sprintf("42\n%d", i))
		if time.Duration(i)*rereadAfter >= waitFor {
			break
		}
		d.want(fmt.Sprintf("reading %d", i), "GPU 0: 41")
		d.clock = d.clock.Add(rereadAfter)
	}
	d.want("after the wait", "GPU 0: 20", "GPU 0: 42")
}

// TestClockSkew: files on a shared file system have the server's time.
func TestClockSkew(t *testing.T) {
	d := newJobDir(t)
	ahead := d.clock.Add(time.Hour)
	d.write("0", "41")
	if err := os.Chtimes(d.path("0"), ahead, ahead); err != nil {
		t.Fatal(err)
	}
	d.want("not settled")
	d.clock = d.clock.Add(settleAfter)
	d.want("settled", "GPU 0: 41")
}

// TestUnusableFiles checks that an unusable file does not affect the others.
func TestUnusableFiles(t *testing.T) {
	for _, tt := range []struct {
		name  string
		write func(d *jobDir, path string) error
		want  poll.Reason
	}{
		{"directory", func(_ *jobDir, path string) error { return os.Mkdir(path, 0o755) }, reasonNotRegular},
		{"fifo", func(_ *jobDir, path string) error { return syscall.Mkfifo(path, 0o644) }, reasonNotRegular},
		{"device", func(_ *jobDir, path string) error { return os.Symlink("/dev/zero", path) }, reasonNotRegular},
		{"too large", func(d *jobDir, _ string) error { d.write("1", strings.Repeat("4", maxFileBytes+1)); return nil }, poll.TooLarge},
		{"long line", func(d *jobDir, _ string) error { d.write("1", strings.Repeat("4", maxLineBytes+1)+"\n"); return nil }, poll.TooLarge},
		{"many jobs", func(d *jobDir, _ string) error {
			for i := range maxFileJobs + 1 {
				d.write("1", fmt.Sprintf("%s%d\n", d.content("1"), i))
			}
			return nil
		}, poll.TooLarge},
		{"binary", func(d *jobDir, _ string) error { d.write("1", "42\x00\n"); return nil }, reasonNotText},
		{"latin-1", func(d *jobDir, _ string) error { d.write("1", "gr\xfcn\n"); return nil }, reasonNotText},
		{"symlink loop", func(_ *jobDir, path string) error { return os.Symlink("1", path) }, reasonNotRegular},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newJobDir(t)
			d.write("0", "41\n")
			d.write("1", "42\n")
			d.want("both", "GPU 0: 41", "GPU 1: 42")
			if err := os.Remove(d.path("1")); err != nil {
				t.Fatal(err)
			}
			if err := tt.write(d, d.path("1")); err != nil {
				t.Fatal(err)
			}
			got, again, problems := d.read()
			if !slices.Equal(got, []string{"GPU 0: 41", "GPU 1: 42"}) || again != waitFor {
				t.Errorf("first reading: %q, again after %v", got, again)
			}
			if len(problems) != 1 || problems[0].Name != "1" || problems[0].Reason != tt.want || problems[0].Err == nil {
				t.Errorf("problems %+v, want one with file 1 and reason %s", problems, tt.want)
			}
			d.clock = d.clock.Add(waitFor)
			got, again, problems = d.read()
			if !slices.Equal(got, []string{"GPU 0: 41"}) || again != 0 || len(problems) != 1 {
				t.Errorf("after the wait: %q, again after %v, problems %v", got, again, problems)
			}
		})
	}
}

func (d *jobDir) content(name string) string {
	b, err := os.ReadFile(d.path(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.t.Fatal(err)
	}
	return string(b)
}

func TestReasonOf(t *testing.T) {
	for err, want := range map[error]poll.Reason{
		&fs.PathError{Op: "open", Path: "0", Err: syscall.EACCES}: poll.Forbidden,
		&fs.PathError{Op: "read", Path: "0", Err: syscall.EIO}:    reasonUnreadable,
		fmt.Errorf("environment: %w", errNoSlot):                  reasonBlocked,
	} {
		if got := reasonOf(SourceSlurm, err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

// TestSymlinks checks that no link is followed: it could lead to a file that only root may
// read, whose content would become a label. The content of a file is not logged either.
func TestSymlinks(t *testing.T) {
	d := newJobDir(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.write("2", "42\n")
	d.write("3", "hunter2\x00\n")
	for name, target := range map[string]string{"0": secret, "1": "gone", "4": "2"} {
		if err := os.Symlink(target, d.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	got, _, problems := d.read()
	if !slices.Equal(got, []string{"GPU 2: 42"}) || len(problems) != 4 {
		t.Errorf("%q, problems %v", got, problems)
	}
	for _, p := range problems {
		if strings.Contains(p.Err.Error(), "hunter2") {
			t.Errorf("the error of file %s has its content: %v", p.Name, p.Err)
		}
	}
}

// TestManyNames checks that job files are found among any number of other names, and that
// a directory with more names than the bound is a counted problem.
func TestManyNames(t *testing.T) {
	d := newJobDir(t)
	for i := range 20000 {
		if err := os.WriteFile(d.path(fmt.Sprintf("0other-%d", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.write("0", "41\n")
	d.write("zzz", "")
	got, _, problems := d.read()
	if !slices.Equal(got, []string{"GPU 0: 41"}) || len(problems) != 0 {
		t.Errorf("%q, problems %v", got, problems)
	}
}

func TestTooManyFiles(t *testing.T) {
	d := newJobDir(t)
	for i := range maxFiles + 1 {
		if err := os.WriteFile(d.path(fmt.Sprint(i)), []byte("41\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, _, problems := d.read()
	if len(got) != maxFiles || len(problems) != 1 || problems[0].Reason != reasonTooMany {
		t.Errorf("%d holds, problems %v", len(got), problems)
	}
}

func FuzzParseJobFile(f *testing.F) {
	for _, s := range []string{"", "\n", "41\n42", "41\r\n\r\n42\n42\n", " 41\t\n", "\x00", "gr\xfcn", strings.Repeat("4", 300)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		ids, err := parseJobFile(content)
		if err != nil && len(ids) > 0 {
			t.Errorf("%q with %v", ids, err)
		}
		if len(ids) > maxFileJobs {
			t.Errorf("%d jobs", len(ids))
		}
		lines := strings.Split(string(content), "\n")
		seen := map[string]bool{}
		for _, id := range ids {
			if seen[id] || strings.TrimSpace(id) == "" || len(id) > maxLineBytes || !isText(id) {
				t.Errorf("job %q", id)
			}
			seen[id] = true
			if !slices.Contains(lines, id) && !slices.Contains(lines, id+"\r") {
				t.Errorf("job %q is not a line", id)
			}
		}
	})
}

func FuzzFileName(f *testing.F) {
	for _, s := range []string{"0", "10", "3.10", "01", "1.2.3", ".", "9999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		id, ok := parseFileName(name)
		if !ok {
			return
		}
		back := fmt.Sprint(id.Number)
		if id.Form == device.FormDCGMInstance {
			back += fmt.Sprintf(".%d", id.GPUInstance)
		}
		if back != name {
			t.Errorf("parseFileName(%q) = %+v", name, id)
		}
	})
}
