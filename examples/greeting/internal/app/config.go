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
			return proxyless.ParseConfig(propertiesFile+" (built in)", builtIn)
		}
		path = propertiesFile
	}
	fmt.Fprintf(os.Stderr, "settings: %s\n", path)
	return proxyless.LoadConfig(path)
}
