package main

import (
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"slices"
	"strings"
)

// api returns what package mount exports on Windows, each with its exact type and without the names of
// parameters.
func (t *tree) api() ([]string, error) {
	out, err := t.run("windows", "list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}", t.mount)
	if err != nil {
		return nil, err
	}
	exports := map[string]string{}
	var path string // the last one is the package itself
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var export string
		path, export, _ = strings.Cut(line, "\t")
		exports[path] = export
	}
	compiled := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
	pkg, err := compiled.Import(path)
	if err != nil {
		return nil, fmt.Errorf("read the API of %s: %w", path, err)
	}
	var lines []string
	for _, name := range pkg.Scope().Names() {
		if token.IsExported(name) {
			lines = append(lines, describe(pkg.Scope().Lookup(name))...)
		}
	}
	slices.Sort(lines)
	return lines, nil
}

func describe(object types.Object) []string {
	name := object.Name()
	switch object := object.(type) {
	case *types.Const:
		return []string{fmt.Sprintf("const %s %s = %s", name, object.Type(), object.Val().ExactString())}
	case *types.Var:
		return []string{fmt.Sprintf("var %s %s", name, unnamed(object.Type()))}
	case *types.Func:
		return []string{fmt.Sprintf("func %s %s", name, unnamed(object.Type()))}
	}
	if alias, is := object.Type().(*types.Alias); is {
		return []string{fmt.Sprintf("type %s = %s", name, alias.Rhs())}
	}
	lines := []string{fmt.Sprintf("type %s %s", name, object.Type().Underlying())}
	methods := types.NewMethodSet(types.NewPointer(object.Type()))
	for i := range methods.Len() {
		if method := methods.At(i).Obj(); method.Exported() {
			lines = append(lines, fmt.Sprintf("method %s.%s %s", name, method.Name(), unnamed(method.Type())))
		}
	}
	return lines
}

// unnamed returns a type whose parameters have no names.
func unnamed(typ types.Type) types.Type {
	switch typ := typ.(type) {
	case *types.Slice:
		return types.NewSlice(unnamed(typ.Elem()))
	case *types.Pointer:
		return types.NewPointer(unnamed(typ.Elem()))
	case *types.Signature:
		return types.NewSignatureType(nil, nil, nil, unnamedTuple(typ.Params()), unnamedTuple(typ.Results()), typ.Variadic())
	}
	return typ
}

func unnamedTuple(tuple *types.Tuple) *types.Tuple {
	var vars []*types.Var
	for i := range tuple.Len() {
		vars = append(vars, types.NewParam(token.NoPos, nil, "", unnamed(tuple.At(i).Type())))
	}
	return types.NewTuple(vars...)
}
