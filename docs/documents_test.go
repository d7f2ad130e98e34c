// Package docs holds the documents to what they describe.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestDocumentsShowTheExamples: code in README.md and docs/embed.md is the code of the package
// comment and of the examples, which run as tests.
func TestDocumentsShowTheExamples(t *testing.T) {
	program := packageProgram(t)
	examples := read(t, "../engine/example_test.go")
	for _, c := range []struct{ document, source, from, to string }{
		{"../README.md", program, "\trelay, err := engine.New(", "\n\tif err"},
		{"embed.md", program, "package main", "\n\x00"},
		{"embed.md", examples, "\tbanner := ", "\n\n\trelay, err"},
		{"embed.md", examples, "\tobserver := ", "\n\n\trelay, err"},
	} {
		_, code, ok := strings.Cut(c.source, c.from)
		if !ok {
			t.Fatalf("no %q in the examples", c.from)
		}
		if code, _, ok = strings.Cut(code, c.to); !ok {
			t.Fatalf("no %q in the examples", c.to)
		}
		code = c.from + code
		if code[0] == '\t' {
			code = strings.ReplaceAll(code, "\n\t", "\n")[1:]
		}
		if !strings.Contains(read(t, c.document), "```go\n"+code+"\n```\n") {
			t.Errorf("%s does not show\n%s", c.document, code)
		}
	}
}

// TestProgramsInDocumentsCompile: each complete program in a document, and the one in the comment
// of package engine, builds.
func TestProgramsInDocumentsCompile(t *testing.T) {
	programs := []string{strings.TrimSuffix(packageProgram(t), "\x00")}
	for _, document := range documents(t) {
		for _, block := range strings.Split(read(t, document), "```go\n")[1:] {
			code, _, _ := strings.Cut(block, "```")
			if strings.HasPrefix(code, "package main\n") {
				programs = append(programs, code)
			}
		}
	}
	if len(programs) < 2 {
		t.Error("no program in any document")
	}
	for _, program := range programs {
		source := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(source, []byte(program), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("go", "vet", source).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s\nof\n%s", err, out, program)
		}
	}
}

// TestLinksInDocumentsLeadSomewhere: each relative link of a document names a file or directory
// that exists, and each fragment a heading of its document.
func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, document := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, document), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, fragment, _ := strings.Cut(m[1], "#")
			target := document
			if path != "" {
				target = filepath.Join(filepath.Dir(document), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link to %s: %v", document, m[1], err)
			} else if fragment != "" && !anchors(read(t, target))[fragment] {
				t.Errorf("%s: link to %s: no such heading", document, m[1])
			}
		}
	}
}

// TestArchitectureListsTheFilesOfTheEngine: the table in docs/architecture.md has every file of
// package engine but its comment, and no others.
func TestArchitectureListsTheFilesOfTheEngine(t *testing.T) {
	_, table, _ := strings.Cut(read(t, "architecture.md"), "| file | what |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z_]+\\.go)`").FindAllStringSubmatch(table, -1) {
		listed[m[1]] = true
		if _, err := os.Stat("../engine/" + m[1]); err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
	}
	files, err := filepath.Glob("../engine/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if name := filepath.Base(file); !strings.HasSuffix(name, "_test.go") && name != "doc.go" && !listed[name] {
			t.Errorf("%s has no row", name)
		}
	}
}

// TestNamesInDocumentsExist: each test or benchmark that a document names is one, and each Go
// file that it names is somewhere in the repository.
func TestNamesInDocumentsExist(t *testing.T) {
	functions, files := map[string]bool{}, map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w+)\(`)
	walk(t, "..", func(path string) {
		if strings.HasSuffix(path, ".go") {
			files[filepath.Base(path)] = true
		}
		if strings.HasSuffix(path, "_test.go") {
			for _, m := range declared.FindAllStringSubmatch(read(t, path), -1) {
				functions[m[1]] = true
			}
		}
	})
	function := regexp.MustCompile("`((?:Test|Benchmark|Fuzz)[A-Z]\\w*)`")
	file := regexp.MustCompile("(Go |)`((?:[\\w.]+/)*)(\\w+\\.go)`") // "Go": one of the standard library's
	for _, document := range documents(t) {
		text := read(t, document)
		for _, m := range function.FindAllStringSubmatch(text, -1) {
			if !functions[m[1]] {
				t.Errorf("%s: there is no %s", document, m[1])
			}
		}
		for _, m := range file.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat("../" + m[2] + m[3]); m[1] == "" && err != nil && (m[2] != "" || !files[m[3]]) {
				t.Errorf("%s: there is no file %s", document, m[2]+m[3])
			}
		}
	}
}

// TestCodeInDocumentsExists: an identifier in backticks, such as `loop.end` or `MaxPairs`, is an
// identifier, a string or a directory of the project's Go source.
func TestCodeInDocumentsExists(t *testing.T) {
	names := map[string]bool{}
	walk(t, "..", func(path string) {
		for _, directory := range strings.Split(filepath.Dir(path), "/") {
			names[directory] = true
		}
		if !strings.HasSuffix(path, ".go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				names[n.Name] = true
			case *ast.BasicLit:
				names[strings.Trim(n.Value, "\"`")] = true
			}
			return true
		})
	})
	identifier := regexp.MustCompile("`([A-Za-z]\\w*(?:\\.[A-Za-z]\\w*)*)(?:\\(\\))?`")
	for _, document := range []string{"architecture.md", "embed.md", "closing.md", "flow-control.md", "../CONTRIBUTING.md"} {
		for _, m := range identifier.FindAllStringSubmatch(read(t, document), -1) {
			if strings.HasSuffix(m[1], ".go") || strings.Contains(m[1], "_") || strings.ToUpper(m[1]) == m[1] {
				continue // a file, for TestNamesInDocumentsExist, or a name of the kernel's
			}
			for _, name := range strings.Split(m[1], ".") {
				if !names[name] {
					t.Errorf("%s: there is no %s in the source (%s)", document, name, m[0])
				}
			}
		}
	}
}

// TestPlainWords: words that readers stumbled over do not come back into documents, programs
// and comments.
func TestPlainWords(t *testing.T) {
	words := regexp.MustCompile(`(?i)\bmen(d|ds|ded|ding)\b`) // fix
	walk(t, "..", func(path string) {
		switch filepath.Ext(path) {
		case ".go", ".md", ".py", ".sh", ".yml", ".html", ".tmpl":
			for i, line := range strings.Split(read(t, path), "\n") {
				if found := words.FindString(line); found != "" {
					t.Errorf("%s:%d: %q", path, i+1, found)
				}
			}
		}
	})
}

// TestDocumentsHave100Columns: lines of documents and Python programs, and comments in Go, have no
// more than 100 columns. What cannot be broken is exempt: rows of tables, pictures, and text that
// programs print into a document; in Go, commands and links; in Python, pylint's own comments.
func TestDocumentsHave100Columns(t *testing.T) {
	walk(t, "..", func(path string) {
		kind := filepath.Ext(path)
		if kind != ".md" && kind != ".py" && kind != ".go" {
			return
		}
		written := false // by a program
		for i, line := range strings.Split(read(t, path), "\n") {
			wide := utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")) > 100
			switch kind {
			case ".md":
				if strings.HasPrefix(line, "<!-- ") {
					written = strings.Contains(line, "begin")
				}
				wide = wide && !written && !strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "![")
			case ".py":
				wide = wide && !strings.Contains(line, "# pylint:")
			case ".go":
				comment, ok := strings.CutPrefix(strings.TrimSpace(line), "// ")
				wide = wide && ok && !strings.Contains(comment, "://")
			}
			if wide {
				t.Errorf("%s:%d has more than 100 columns", path, i+1)
			}
		}
	})
}

// TestDocumentsAreShort: a reader can take in the front page and the results at one sitting.
func TestDocumentsAreShort(t *testing.T) {
	for document, most := range map[string]int{"../README.md": 130, "../bench/RESULTS.md": 200} {
		if n := strings.Count(read(t, document), "\n"); n >= most {
			t.Errorf("%s has %d lines, want fewer than %d", document, n, most)
		}
	}
}

// documents are the Markdown files of the repository.
func documents(t *testing.T) (paths []string) {
	walk(t, "..", func(path string) {
		if strings.HasSuffix(path, ".md") {
			paths = append(paths, path)
		}
	})
	if len(paths) < 10 {
		t.Fatalf("only %d documents: %v", len(paths), paths)
	}
	return paths
}

// walk calls f for every file below root, except in hidden directories and those that builds and
// measurements make.
func walk(t *testing.T, root string, f func(path string)) {
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case !entry.IsDir():
			f(path)
		case path != root && strings.HasPrefix(name, "."), name == "bin", name == "results":
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// anchors are the fragments by which the headings of a document can be linked, as GitHub makes
// them.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		heading := strings.TrimLeft(line, "#")
		if fenced || heading == line || heading[0] != ' ' {
			continue
		}
		heading = strings.ToLower(strings.TrimSpace(heading))
		heading = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(heading, "")
		found[strings.ReplaceAll(heading, " ", "-")] = true
	}
	return found
}

// packageProgram is the program in the comment of package engine, with a NUL behind it.
func packageProgram(t *testing.T) string {
	_, rest, ok := strings.Cut(read(t, "../engine/doc.go"), "//\tpackage main\n")
	if !ok {
		t.Fatal("no program in doc.go")
	}
	program := "package main\n"
	for line := range strings.Lines(rest) {
		code, ok := strings.CutPrefix(strings.TrimPrefix(line, "//"), "\t")
		if !ok && line != "//\n" {
			break
		}
		program += code
	}
	return strings.TrimRight(program, "\n") + "\n\x00"
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
