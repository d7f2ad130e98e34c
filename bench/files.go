package bench

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// The files in a directory of results.
const (
	JSONFile   = "results.json"
	CSVFile    = "results.csv"
	TableFile  = "table.md"
	ReportFile = "report.html"
)

// MakeDir makes the directory dir unless it exists. The error says why results could not
// be written into it: to know before they are measured.
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

// Write writes the results into dir, which exists: all raw figures as JSON and as CSV,
// and the tables.
func (r *Results) Write(dir string) error {
	for name, write := range map[string]func(io.Writer) error{
		JSONFile: r.WriteJSON,
		CSVFile:  r.writeCSV,
		TableFile: func(w io.Writer) error {
			_, err := io.WriteString(w, r.Markdown())
			return err
		},
	} {
		if err := writeFile(filepath.Join(dir, name), write); err != nil {
			return fmt.Errorf("write the results: %w", err)
		}
	}
	return nil
}

// WriteReport reads the results in dir and writes the page beside them. It returns
// the page's path.
func WriteReport(dir string) (string, error) {
	r, err := Read(dir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, ReportFile)
	if err := writeFile(path, r.HTML); err != nil {
		return "", fmt.Errorf("write the report: %w", err)
	}
	return path, nil
}

// Read reads the results that Write has written into dir.
func Read(dir string) (*Results, error) {
	text, err := os.ReadFile(filepath.Join(dir, JSONFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s; give a directory that tpbench compare --out has written", dir, JSONFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read the results: %w", err)
	}
	r := new(Results)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, JSONFile), err)
	}
	return r, nil
}

// WriteJSON writes everything, for programs.
func (r *Results) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// writeCSV writes one line per run and figure; a run that failed has one line with
// its error.
func (r *Results) writeCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	out.Write([]string{"began", "round", "point", "relay", "metric", "unit", "value", "error"})
	for _, run := range r.Runs {
		head := []string{run.Began.Format(time.RFC3339), strconv.Itoa(run.Round), run.Point, run.Relay}
		if run.Error != "" {
			out.Write(append(head, "", "", "", run.Error))
			continue
		}
		p, _ := FindPoint(run.Point)
		for _, m := range p.Metrics {
			if v, ok := run.Figures[m.Name]; ok {
				out.Write(append(head, m.Name, m.Unit, strconv.FormatFloat(v, 'g', 6, 64), ""))
			}
		}
	}
	out.Flush()
	return out.Error()
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
