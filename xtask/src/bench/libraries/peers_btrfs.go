// The peers' drivers on btrfs, which need C libraries.
package main

import (
	"path/filepath"

	containerdbtrfs "github.com/containerd/containerd/snapshots/btrfs"
	storagedriver "github.com/containers/storage/drivers"
	storagebtrfs "github.com/containers/storage/drivers/btrfs"
)

func init() {
	peers["containers/storage"] = func(directory string) (peer, error) {
		options := storagedriver.Options{Root: directory, RunRoot: directory + "-run"}
		driver, err := storagebtrfs.Init(filepath.Join(directory, "btrfs"), options)
		if err != nil {
			return peer{}, err
		}
		return storagePeer(driver)
	}
	peers["containerd"] = func(directory string) (peer, error) {
		snapshotter, err := containerdbtrfs.NewSnapshotter(directory)
		if err != nil {
			return peer{}, err
		}
		return containerdPeer(snapshotter, directory)
	}
}
