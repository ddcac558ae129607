package lab

import (
	"os"
	"path/filepath"
	"syscall"
)

// runFile is locked in the folder of a run for as long as the run lasts. A
// folder that has it unlocked was left by a run that was killed; the folder of
// a failed run, whose logs someone wants to read, has it no more.
const runFile = "running"

// runDir is the folder of one run.
type runDir struct {
	path string
	lock *os.File
}

// newRunDir makes one, and removes those that killed runs have left.
func newRunDir() (*runDir, error) {
	stale, _ := filepath.Glob(filepath.Join(os.TempDir(), "proxyless-lab-*", runFile))
	for _, file := range stale {
		if lock, err := tryLock(file); err == nil {
			os.RemoveAll(filepath.Dir(file))
			lock.Close()
		}
	}
	path, err := os.MkdirTemp("", "proxyless-lab-")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(path, runFile)
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		return nil, err
	}
	lock, err := tryLock(file)
	return &runDir{path: path, lock: lock}, err
}

// close removes the folder, or all of it but the logs.
func (d *runDir) close(keepLogs bool) {
	if keepLogs {
		for _, part := range []string{"bin", dataFolder, runFile} {
			os.RemoveAll(filepath.Join(d.path, part))
		}
	} else {
		os.RemoveAll(d.path)
	}
	d.lock.Close()
}

func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
