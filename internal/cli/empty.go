package cli

import (
	"errors"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
)

// refuseEmpty makes an empty value an error, for all flags and arguments of node and the
// commands below it. Otherwise --user "$NAME" in a script with an unset variable would count
// as no flag at all.
func refuseEmpty(node *kong.Node) {
	values := node.Positional
	for _, flag := range node.Flags {
		values = append(values, flag.Value)
	}
	for _, value := range values {
		if !value.IsBool() {
			value.Mapper = notEmpty{value.Mapper}
		}
	}
	for _, child := range node.Children {
		refuseEmpty(child)
	}
}

// notEmpty is a mapper that refuses empty values.
type notEmpty struct{ kong.Mapper }

// Decode parses the next value of the command line, or all remaining values of an argument
// that may be repeated.
func (n notEmpty) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	next := ctx.Scan.PeekAll()
	if several := ctx.Value.Flag == nil && ctx.Value.IsCumulative(); !several && len(next) > 1 {
		next = next[:1]
	}
	for _, token := range next {
		if text, ok := token.Value.(string); ok && strings.TrimSpace(text) == "" {
			return errors.New("the value is empty; give one, or omit it")
		}
	}
	return n.Mapper.Decode(ctx, target)
}
