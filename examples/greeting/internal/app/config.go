package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/proxyless/proxyless"
)

const propertiesFile = "dubbo.properties"

// LoadConfig reads the settings at path. Where path is empty it reads
// dubbo.properties in the working directory, and where there is none, those
// built into the program. It says on standard error which it took.
func LoadConfig(path string, builtIn []byte) (proxyless.Config, error) {
	if path == "" {
		_, err := os.Stat(propertiesFile)
		if errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(os.Stderr, "settings: built in (no %s here)\n", propertiesFile)
			return loadBuiltIn(builtIn)
		}
		path = propertiesFile
	}
	fmt.Fprintf(os.Stderr, "settings: %s\n", path)
	return proxyless.LoadConfig(path)
}

// loadBuiltIn takes the way through a file, since that is what is loaded.
func loadBuiltIn(properties []byte) (cfg proxyless.Config, err error) {
	file, err := os.CreateTemp("", "built-in-*.properties")
	if err != nil {
		return cfg, fmt.Errorf("the built-in settings need a temporary file (%w); put %s into the working directory, or name a file with -config", err, propertiesFile)
	}
	defer func() { err = errors.Join(err, os.Remove(file.Name())) }()
	_, writeErr := file.Write(properties)
	if err := errors.Join(writeErr, file.Close()); err != nil {
		return cfg, err
	}
	return proxyless.LoadConfig(file.Name())
}
