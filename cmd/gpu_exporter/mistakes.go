// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// fileMistakes is an error in which every line is of the configuration file: flags and
// variables are well.
type fileMistakes struct{ error }

// err is all that is wrong, or nil. What is wrong in the configuration file is in the
// order of its lines.
func (r *resolver) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	if r.file != nil {
		sortByLine(r.problems, r.file.path)
	}
	err := errors.New(strings.Join(r.problems, "\n"))
	if r.file == nil || slices.ContainsFunc(r.problems, func(p string) bool { return !strings.HasPrefix(p, r.file.path+":") }) {
		return err
	}
	return fileMistakes{err}
}

// sortByLine sorts those of the problems that are of a file by their lines. The others
// stay where they are.
func sortByLine(problems []string, path string) {
	type located struct {
		line int
		text string
	}
	var at []int
	var inFile []located
	for i, p := range problems {
		rest, ok := strings.CutPrefix(p, path+":")
		if !ok {
			continue
		}
		number, _, _ := strings.Cut(rest, ":")
		line, err := strconv.Atoi(number)
		if err != nil {
			continue // of the file as a whole
		}
		at, inFile = append(at, i), append(inFile, located{line, p})
	}
	slices.SortStableFunc(inFile, func(a, b located) int { return a.line - b.line })
	for i, l := range inFile {
		problems[at[i]] = l.text
	}
}

// inLineOrder puts the lines of an error that are of the file in the order of the file.
func inLineOrder(err error, file string) error {
	if err == nil {
		return nil
	}
	lines := strings.Split(err.Error(), "\n")
	sortByLine(lines, file)
	return errors.New(strings.Join(lines, "\n"))
}
