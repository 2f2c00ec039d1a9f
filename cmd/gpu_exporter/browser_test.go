// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/podmapper/kubelettest"
)

var pictures = flag.Bool("pictures", false, "rewrite the pictures of the status page in images")

// view is a window of the browser.
type view struct {
	Name    string `json:"name"`
	Width   int    `json:"width"`
	Height  int    `json:"height"`
	Scheme  string `json:"scheme"`
	Scale   int    `json:"scale,omitempty"`
	Picture string `json:"picture,omitempty"` // path
}

func views() []view {
	return []view{
		{Name: "desktop, light", Width: 1280, Height: 800, Scheme: "light"},
		{Name: "desktop, dark", Width: 1280, Height: 800, Scheme: "dark"},
		{Name: "phone, light", Width: 360, Height: 740, Scheme: "light"},
		{Name: "phone, dark", Width: 360, Height: 740, Scheme: "dark"},
	}
}

// viewed is what the browser found; see internal/status/browser/check.cjs.
type viewed struct {
	Name                             string
	Errors, Requests                 []string
	Overflow, Wide, Scripts, Foreign int
	GPUs, Instances                  int
	Text, Title, Background, Color   string
	Open, Offline                    string
}

// browse opens the status page of n in Chromium.
func browse(t *testing.T, n *node, refresh bool, views ...view) (all []viewed) {
	t.Helper()
	job, err := json.Marshal(map[string]any{"url": "http://" + n.address + "/", "chromium": os.Getenv("BROWSER"), "views": views, "refresh": refresh})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "internal/status/browser/check.cjs", string(job))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return all
}

// holding starts a node whose devices are held by pods, which get UUIDs by the number of the GPU.
func holding(t *testing.T, scenario string, pods func(uuid func(gpu string) string) []*podresources.PodResources, args ...string) *node {
	t.Helper()
	kubelet, socket := startKubelet(t)
	n := startNode(t, scenario, append([]string{"-k", "--hostname=gpu-node-7", "--kubernetes.pod-resources-socket=" + socket}, args...)...)
	all := pods(func(gpu string) string { return n.uuid(t, gpu) })
	kubelet.SetPods(all...)
	n.eventually(t, "the pods are on their devices", func() bool {
		_, count := sumOf(n.scrape(t), "gpu_pod_info")
		return count >= len(all)
	})
	return n
}

// training returns pods that hold GPUs 0 to 5 of a node; two share GPU 5.
func training(uuid func(string) string) (pods []*podresources.PodResources) {
	for gpu := range 4 {
		pods = append(pods, kubelettest.Pod("research", fmt.Sprintf("llama-train-%d", gpu/2), "trainer", "nvidia.com/gpu", uuid(strconv.Itoa(gpu))))
	}
	return append(pods,
		kubelettest.Pod("serving", "triton-7c9d8-x2x4k", "triton", "nvidia.com/gpu", uuid("4")),
		kubelettest.Pod("serving", "embed-5f6b7-9zq2l", "vllm", "nvidia.com/gpu.shared", uuid("5")+"::0"),
		kubelettest.Pod("notebooks", "jupyter-ada", "notebook", "nvidia.com/gpu.shared", uuid("5")+"::1"))
}

// TestBrowser opens the status page in Chromium, on a desktop and a phone, light and dark. On
// no page anything is wider than the window, and no name is executed.
func TestBrowser(t *testing.T) {
	if os.Getenv("BROWSER") == "" {
		t.Skip("make test-browser runs it: it needs Chromium and playwright-core")
	}
	const script = `"><script>document.title='owned'</script><img src=x onerror="document.title='owned'">`
	long := strings.Repeat("long-name-without-blanks", 10) // nearly the 253 characters that Kubernetes allows
	for name, page := range map[string]struct {
		start           func(t *testing.T) *node
		texts           []string
		gpus, instances int
		refresh         bool
		picture         view // in images, with -pictures
	}{
		"healthy": {
			start: func(t *testing.T) *node { return holding(t, "h100x8", training) },
			texts: []string{"8 GPUs: 8 healthy", "free", "llama-train-1", "jupyter-ada", "570.133.20", "hang sampling"}, gpus: 8, refresh: true,
			picture: view{Width: 1240, Height: 700, Scheme: "light", Picture: "status.png"},
		},
		"lost GPU": {
			start: func(t *testing.T) *node {
				n := holding(t, "h100x8", training)
				n.command(t, "xid 79 gpu 3")
				n.has(t, 1, "gpu_xid_code_errors_total", `gpu="3"`)
				for _, command := range []string{"lose gpu 3", "recovery gpu 5 reset", "reason gpu 6 hw_power_brake on"} {
					n.command(t, command)
				}
				n.has(t, 7, "gpu_up")
				n.has(t, 1, "gpu_recovery_action", `gpu="5"`)
				n.nextSample(t)
				return n
			},
			texts: []string{"1 lost", "XID 79", "fell off the bus", "power-cycle it if the GPU does not return.", "unknown", "gpu_reset", "power brake"}, gpus: 8,
			picture: view{Width: 1240, Height: 620, Scheme: "light", Picture: "status-lost.png"},
		},
		"hung driver": {
			start: func(t *testing.T) *node {
				n := startNode(t, "h100x8", fast...)
				n.command(t, "hang sampling")
				n.has(t, 0, "gpu_up")
				n.eventually(t, "the sample is old", func() bool { return !n.status(t).Sample.Fresh })
				return n
			},
			texts: []string{"8 unknown", "Not ready", "Not observed for", "all values are withheld"}, gpus: 8,
		},
		"missing library": {
			start: func(t *testing.T) *node {
				n := launchNode(t, "", "--dcgm.library-path="+t.TempDir())
				n.eventually(t, "the library is missing", func() bool { return strings.Contains(n.log.String(), "library_missing") })
				return n
			},
			texts: []string{"No GPU is known yet", "libdcgm.so.4", "no sample yet"},
		},
		"112 instances": {
			start: func(t *testing.T) *node {
				scenario := "gpu h100 count 16\n"
				for gpu := range 16 {
					scenario += fmt.Sprintf("mig gpu %d 1g.10gb*7\n", gpu)
				}
				n := startNode(t, writeFile(t, filepath.Join(t.TempDir(), "node.scenario"), scenario))
				n.nextSample(t) // the first one has no profiling values
				return n
			},
			texts: []string{"16 GPUs: 16 healthy", "15.13", "per instance"}, gpus: 16, instances: 112,
		},
		"MIG with owners": {
			start: func(t *testing.T) *node {
				n := holding(t, "h100x8-mig", func(uuid func(string) string) []*podresources.PodResources {
					return []*podresources.PodResources{kubelettest.Pod("serving", "embed-5f6b7-9zq2l", "vllm", "nvidia.com/mig-1g.10gb", firstMIGDevice)}
				})
				n.nextSample(t)
				return n
			},
			texts: []string{"embed-5f6b7-9zq2l", "8 GPUs: 8 healthy"}, gpus: 8, instances: 1,
			picture: view{Width: 390, Height: 760, Scheme: "dark", Scale: 2, Picture: "status-phone.png"},
		},
		"hostile pods": {
			start: func(t *testing.T) *node {
				return holding(t, "h100x8", func(uuid func(string) string) []*podresources.PodResources {
					return []*podresources.PodResources{
						kubelettest.Pod("ml", script, script, "nvidia.com/gpu", uuid("0")),
						kubelettest.Pod(long, long, long, "nvidia.com/gpu", uuid("1")),
					}
				})
			},
			texts: []string{script, long, "free"}, gpus: 8,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := page.start(t)
			windows := views()
			if *pictures && page.picture.Picture != "" {
				page.picture.Picture = filepath.Join("images", page.picture.Picture)
				windows = append(windows, page.picture)
			}
			for i, v := range browse(t, n, page.refresh, windows...) {
				for _, text := range page.texts {
					if !strings.Contains(v.Text, text) {
						t.Errorf("%s: no text %.80q on the page:\n%.1500s", v.Name, text, v.Text)
					}
				}
				if v.Overflow > 0 || v.Wide > 0 {
					t.Errorf("%s: the page is %d pixels wider than the window, and %d elements are", v.Name, v.Overflow, v.Wide)
				}
				if len(v.Errors) > 0 || v.Scripts != 1 || v.Foreign != 0 || !strings.HasSuffix(v.Title, "gpu_exporter") {
					t.Errorf("%s: errors %q, %d scripts, %d foreign elements, title %q", v.Name, v.Errors, v.Scripts, v.Foreign, v.Title)
				}
				if v.GPUs != page.gpus || v.Instances < page.instances || v.Instances > 0 && page.instances == 0 {
					t.Errorf("%s: %d GPUs and %d instances", v.Name, v.GPUs, v.Instances)
				}
				for _, url := range v.Requests {
					if url != "http://"+n.address+"/" && !strings.HasPrefix(url, "data:") {
						t.Errorf("%s: a request to %s", v.Name, url)
					}
				}
				if dark := luminance(t, v.Background) < luminance(t, v.Color); dark != (windows[i].Scheme == "dark") {
					t.Errorf("%s: background %s, text %s", v.Name, v.Background, v.Color)
				}
				if page.refresh && (v.Open != "settings" || !strings.Contains(v.Offline, "does not answer")) {
					t.Errorf("%s: after a refresh, %q is open; without the exporter: %q", v.Name, v.Open, v.Offline)
				}
			}
			if *pictures && page.picture.Picture != "" {
				shrink(t, page.picture.Picture)
			}
		})
	}
}

// maxPicture bounds the size of a picture in the repository.
const maxPicture = 150 << 10

// shrink reduces a picture to its 256 most frequent colors.
func shrink(t *testing.T, path string) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	original, err := png.Decode(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	counts := map[color.Color]int{}
	bounds := original.Bounds()
	for y := range bounds.Max.Y {
		for x := range bounds.Max.X {
			counts[original.At(x, y)]++
		}
	}
	colors := slices.SortedFunc(maps.Keys(counts), func(a, b color.Color) int { return counts[b] - counts[a] })
	reduced := image.NewPaletted(bounds, colors[:min(len(colors), 256)])
	draw.Draw(reduced, bounds, original, image.Point{}, draw.Src)
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, reduced); err != nil {
		t.Fatal(err)
	}
	if b.Len() > maxPicture {
		t.Errorf("%s has %d bytes, the limit is %d", path, b.Len(), maxPicture)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// luminance returns the sum of a color such as rgb(18, 22, 28).
func luminance(t *testing.T, text string) (sum int) {
	t.Helper()
	for _, part := range regexp.MustCompile(`\d+`).FindAllString(text, 3) {
		n, err := strconv.Atoi(part)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}
