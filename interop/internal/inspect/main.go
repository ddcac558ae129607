// Command inspect is a program for pods of the lab's own tests: it tells over
// HTTP what it sees of its surroundings, and does as it is told.
package main

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	var unready atomic.Bool
	http.HandleFunc("/live", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/ready", func(w http.ResponseWriter, r *http.Request) {
		if unready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/set-ready", func(_ http.ResponseWriter, r *http.Request) { unready.Store(r.FormValue("to") != "true") })
	http.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	http.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getenv(r.FormValue("name"))) })
	http.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.Write(data)
	})
	http.HandleFunc("/process", func(w http.ResponseWriter, r *http.Request) {
		name, _ := os.Hostname()
		fmt.Fprintln(w, os.Getpid(), os.Getuid(), name, os.Args)
	})
	http.HandleFunc("/tree", tree)
	go func() { // ends with the process
		fmt.Fprintln(os.Stderr, http.ListenAndServe(":8080", nil))
		os.Exit(1)
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	delay, _ := time.ParseDuration(os.Getenv("STOP_DELAY"))
	fmt.Println("SIGTERM, ending in", delay)
	time.Sleep(delay)
	fmt.Println("ended in good order")
}

// tree lists every file of the root directory.
func tree(w http.ResponseWriter, _ *http.Request) {
	filepath.WalkDir("/", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.IsDir() {
			fmt.Fprintln(w, path)
		}
		return nil
	})
}
