// The life of a layer with the peers' own libraries, as Debian packages them: the same loop as the runner's `cycle`.
//
// peers NAME DIRECTORY COUNT THREADS prints microseconds an operation: the median where one runs at a time, the time of
// all divided by their number where several do.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/snapshots"
	containerd "github.com/containerd/containerd/snapshots/overlay"
	storagedriver "github.com/containers/storage/drivers"
	storage "github.com/containers/storage/drivers/overlay"
	"github.com/containers/storage/pkg/reexec"
)

// A peer's operations on the writable layer of a name, each on the same sealed parent.
type peer struct {
	create, mount, unmount, remove func(name string) error
}

// How each peer opens a directory: on overlayfs, unless another file says otherwise.
var peers = map[string]func(string) (peer, error){
	"containers/storage": openStorage, "containerd": openContainerd,
}

func main() {
	// containers/storage starts this program again for work in a chroot.
	if reexec.Init() {
		return
	}
	if len(os.Args) != 5 {
		fail(fmt.Errorf("usage: peers NAME DIRECTORY COUNT THREADS"))
	}
	open := peers[os.Args[1]]
	if open == nil {
		fail(fmt.Errorf("there is no peer %s", os.Args[1]))
	}
	count, err := strconv.Atoi(os.Args[3])
	check(err)
	threads, err := strconv.Atoi(os.Args[4])
	check(err)
	peer, err := open(os.Args[2])
	check(err)
	result := map[string]float64{}
	for _, step := range []struct {
		name string
		work func(string) error
	}{{"create", peer.create}, {"mount", peer.mount}, {"unmount", peer.unmount}, {"remove", peer.remove}} {
		if threads == 1 {
			result[step.name], err = oneAtATime(count, step.work)
		} else {
			result[step.name], err = severalAtOnce(count, threads, step.work)
		}
		check(err)
	}
	check(json.NewEncoder(os.Stdout).Encode(result))
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}

func layer(number int) string {
	return fmt.Sprintf("layer%d", number)
}

func oneAtATime(count int, work func(string) error) (float64, error) {
	var times []float64
	for number := 0; number < count; number++ {
		start := time.Now()
		if err := work(layer(number)); err != nil {
			return 0, err
		}
		times = append(times, micros(start))
	}
	sort.Float64s(times)
	return times[len(times)/2], nil
}

func severalAtOnce(count, threads int, work func(string) error) (float64, error) {
	var wait sync.WaitGroup
	errors := make(chan error, count)
	start := time.Now()
	for thread := 0; thread < threads; thread++ {
		wait.Add(1)
		go func(thread int) {
			defer wait.Done()
			for number := thread; number < count; number += threads {
				if err := work(layer(number)); err != nil {
					errors <- err
					return
				}
			}
		}(thread)
	}
	wait.Wait()
	took := micros(start)
	close(errors)
	return took / float64(count), <-errors
}

func micros(start time.Time) float64 {
	return float64(time.Since(start).Nanoseconds()) / 1e3
}

func openStorage(directory string) (peer, error) {
	options := storagedriver.Options{Root: directory, RunRoot: directory + "-run"}
	driver, err := storage.Init(filepath.Join(directory, "overlay"), options)
	if err != nil {
		return peer{}, err
	}
	return storagePeer(driver)
}

func storagePeer(driver storagedriver.Driver) (peer, error) {
	if err := driver.Create("base", "", nil); err != nil {
		return peer{}, err
	}
	return peer{
		create:  func(name string) error { return driver.CreateReadWrite(name, "base", nil) },
		mount:   func(name string) error { _, err := driver.Get(name, storagedriver.MountOpts{}); return err },
		unmount: driver.Put,
		remove:  driver.Remove,
	}, nil
}

// containerd's snapshotter gives the mounts; its client mounts them.
func openContainerd(directory string) (peer, error) {
	snapshotter, err := containerd.NewSnapshotter(directory)
	if err != nil {
		return peer{}, err
	}
	return containerdPeer(snapshotter, directory)
}

func containerdPeer(snapshotter snapshots.Snapshotter, directory string) (peer, error) {
	ctx := context.Background()
	if _, err := snapshotter.Prepare(ctx, "preparing", ""); err != nil {
		return peer{}, err
	}
	if err := snapshotter.Commit(ctx, "base", "preparing"); err != nil {
		return peer{}, err
	}
	target := func(name string) string { return filepath.Join(directory, "mounted", name) }
	return peer{
		create: func(name string) error { _, err := snapshotter.Prepare(ctx, name, "base"); return err },
		mount: func(name string) error {
			mounts, err := snapshotter.Mounts(ctx, name)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(target(name), 0o700); err != nil {
				return err
			}
			return mount.All(mounts, target(name))
		},
		unmount: func(name string) error { return mount.Unmount(target(name), 0) },
		remove:  func(name string) error { return snapshotter.Remove(ctx, name) },
	}, nil
}
