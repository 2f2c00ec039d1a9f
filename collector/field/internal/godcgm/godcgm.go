// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package godcgm reads the names of DCGM's fields out of the source of the
// go-dcgm module that this module requires, as text. It serves the generator of
// the table of collector/field and the test that compares the two; nothing that runs
// in the exporter may import it.
package godcgm

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Module is go-dcgm's module path.
const Module = "github.com/NVIDIA/go-dcgm"

// Name is a field name that go-dcgm resolves.
type Name struct {
	Name   string
	ID     uint16
	Legacy bool // in go-dcgm's map of legacy names
}

// Names returns all of them, sorted by name. It asks the go command where the
// module lies.
func Names(ctx context.Context) ([]Name, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", Module)
	dir, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return nil, fmt.Errorf("locating %s with go list: %w", Module, err)
	}
	path := strings.TrimSpace(string(dir))
	if path == "" {
		return nil, fmt.Errorf("%s is not downloaded: run go mod download %s", Module, Module)
	}
	return Read(filepath.Join(path, "pkg", "dcgm", "const_fields.go"))
}

// Read returns the names in go-dcgm's const_fields.go, sorted by name. Where a
// name is in both maps, the current one wins, as in go-dcgm's GetFieldID.
func Read(path string) ([]Name, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("reading go-dcgm's fields: %w", err)
	}
	current, err := mapLiteral(file, "dcgmFields")
	if err != nil {
		return nil, fmt.Errorf("reading go-dcgm's fields: %w", err)
	}
	legacy, err := mapLiteral(file, "legacyDCGMFields")
	if err != nil {
		return nil, fmt.Errorf("reading go-dcgm's legacy fields: %w", err)
	}
	names := make([]Name, 0, len(current)+len(legacy))
	for name, id := range current {
		names = append(names, Name{name, id, false})
	}
	for name, id := range legacy {
		if _, ok := current[name]; !ok {
			names = append(names, Name{name, id, true})
		}
	}
	slices.SortFunc(names, func(a, b Name) int { return strings.Compare(a.Name, b.Name) })
	return names, nil
}

func mapLiteral(file *ast.File, name string) (map[string]uint16, error) {
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR {
			continue
		}
		for _, spec := range gen.Specs {
			vs := spec.(*ast.ValueSpec)
			if len(vs.Names) != 1 || vs.Names[0].Name != name || len(vs.Values) != 1 {
				continue
			}
			lit, ok := vs.Values[0].(*ast.CompositeLit)
			if !ok {
				return nil, fmt.Errorf("%s is not a map literal", name)
			}
			return pairs(lit)
		}
	}
	return nil, fmt.Errorf("there is no variable %s", name)
}

func pairs(lit *ast.CompositeLit) (map[string]uint16, error) {
	m := make(map[string]uint16, len(lit.Elts))
	for _, elt := range lit.Elts {
		kv, ok := elt.(*ast.KeyValueExpr)
		if !ok {
			return nil, errors.New("an element is not a pair")
		}
		key, ok1 := kv.Key.(*ast.BasicLit)
		value, ok2 := kv.Value.(*ast.BasicLit)
		if !ok1 || !ok2 {
			return nil, errors.New("a pair is not made of literals")
		}
		name, err := strconv.Unquote(key.Value)
		if err != nil {
			return nil, fmt.Errorf("name %s: %w", key.Value, err)
		}
		id, err := strconv.ParseUint(value.Value, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("id of %s: %w", name, err)
		}
		m[name] = uint16(id)
	}
	return m, nil
}
