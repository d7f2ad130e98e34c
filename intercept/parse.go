package intercept

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Parse makes an interceptor of its description, as on a command line:
//
//	label=TEXT        see Label
//	replace=OLD:NEW   see Replace; NEW may be empty
//	record=DIR        see Record; the result is a *Recorder
//
// TEXT, OLD and NEW may contain the escapes of Go strings (\n, \t, \\, \x00, \u00e9 ...), and \:
// for a colon. DIR is taken as it is. The error quotes spec and says what is wrong with it.
func Parse(spec string) (Interceptor, error) {
	kind, argument, ok := strings.Cut(spec, "=")
	var i Interceptor
	var err error
	switch kind {
	case "label":
		i, err = parseLabel(argument)
	case "replace":
		i, err = parseReplace(argument)
	case "record":
		i, err = parseRecord(argument)
	default:
		return nil, fmt.Errorf("interceptor %q: want label=TEXT, replace=OLD:NEW or record=DIR", spec)
	}
	if !ok {
		return nil, fmt.Errorf("interceptor %q: %s needs an argument: want label=TEXT, replace=OLD:NEW or record=DIR", spec, kind)
	}
	if err != nil {
		return nil, fmt.Errorf("interceptor %q: %w", spec, err)
	}
	return i, nil
}

func parseLabel(argument string) (Interceptor, error) {
	parts, err := unescape(argument)
	if err != nil {
		return nil, err
	}
	text := strings.Join(parts, ":") // a label has no use for a separator
	if text == "" {
		return nil, fmt.Errorf("the text is empty: want label=TEXT")
	}
	return Label(text), nil
}

func parseReplace(argument string) (Interceptor, error) {
	parts, err := unescape(argument)
	switch {
	case err != nil:
		return nil, err
	case len(parts) == 1:
		return nil, fmt.Errorf("no colon between the old and the new text: want replace=OLD:NEW")
	case len(parts) > 2:
		return nil, fmt.Errorf(`more than one colon: write \: for a colon that belongs to a text`)
	}
	return Replace(parts[0], parts[1])
}

func parseRecord(argument string) (Interceptor, error) {
	r, err := Record(argument)
	if err != nil {
		return nil, err // not r: a nil *Recorder is not a nil Interceptor
	}
	return r, nil
}

// unescape splits text at its colons and resolves the escapes in the parts.
func unescape(text string) ([]string, error) {
	var parts []string
	var part []byte
	for text != "" {
		switch {
		case text[0] == ':':
			parts = append(parts, string(part))
			part, text = part[:0], text[1:]
		case text[0] != '\\':
			part, text = append(part, text[0]), text[1:]
		case len(text) > 1 && strings.IndexByte(`:"'`, text[1]) >= 0:
			part, text = append(part, text[1]), text[2:]
		default:
			char, multibyte, rest, err := strconv.UnquoteChar(text, 0)
			if err != nil {
				return nil, fmt.Errorf(`bad escape at %q: write \\ for a backslash`, text)
			}
			if multibyte {
				part = utf8.AppendRune(part, char)
			} else {
				part = append(part, byte(char))
			}
			text = rest
		}
	}
	return append(parts, string(part)), nil
}
