package output

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tprelay/tprelay/bench/stats"
)

// The files in a directory of results.
const (
	JSONFile      = "results.json"
	BenchstatFile = "benchstat.txt"
	TableFile     = "table.md"
	ReportFile    = "report.html"
)

// MakeDir makes the directory dir unless it exists. The error says why results could not be written
// into it, before they are measured.
func MakeDir(dir string) error {
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(dir, ".results-*"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}
	if err != nil {
		return fmt.Errorf("no place for results: %w", err)
	}
	return nil
}

// Write writes the results into dir, which exists: all raw figures as JSON and for benchstat, and
// the tables.
func Write(dir string, r *stats.Results) error {
	for name, write := range map[string]func(io.Writer, *stats.Results) error{
		JSONFile:      WriteJSON,
		BenchstatFile: writeBenchstat,
		TableFile: func(w io.Writer, r *stats.Results) error {
			_, err := io.WriteString(w, Markdown(r))
			return err
		},
	} {
		if err := writeFile(filepath.Join(dir, name), r, write); err != nil {
			return fmt.Errorf("write the results: %w", err)
		}
	}
	return nil
}

// WriteReport reads the results in dir and writes the page beside them. It returns the page's path.
func WriteReport(dir string) (string, error) {
	r, err := Read(dir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, ReportFile)
	if err := writeFile(path, r, HTML); err != nil {
		return "", fmt.Errorf("write the report: %w", err)
	}
	return path, nil
}

// Read reads the results that Write has written into dir.
func Read(dir string) (*stats.Results, error) {
	text, err := os.ReadFile(filepath.Join(dir, JSONFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s; give a directory that tpbench compare --out has written", dir, JSONFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read the results: %w", err)
	}
	r := new(stats.Results)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, JSONFile), err)
	}
	return r, nil
}

// WriteJSON writes everything, for programs.
func WriteJSON(w io.Writer, r *stats.Results) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

func writeFile(path string, r *stats.Results, write func(io.Writer, *stats.Results) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
