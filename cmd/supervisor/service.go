package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/control"
)

// oneName takes the single operand NAME.
func (e *env) oneName(operands []string) (string, error) {
	if len(operands) == 0 {
		hint := "supervisor status lists the services that run"
		if names, err := control.Running(e.runtimeDir); err == nil && len(names) == 1 {
			hint = "the one that runs is " + names[0]
		}
		return "", usageError{"the name of a service is missing", hint}
	}
	if len(operands) > 1 {
		return "", usageError{"too many arguments: " + strings.Join(operands[1:], " "), "one service at a time"}
	}
	name := operands[0]
	if err := config.CheckName(name); err != nil {
		return "", usageError{err.Error(), "NAME is the name of a file in /etc/supervisor without .toml"}
	}
	return name, nil
}

// dial connects to the service called name. The caller closes the client.
func (e *env) dial(ctx context.Context, name string) (*control.Client, error) {
	client, err := control.Dial(ctx, filepath.Join(e.runtimeDir, name))
	if errors.Is(err, control.ErrNotRunning) {
		names, _ := control.Running(e.runtimeDir)
		return nil, hinted{fmt.Errorf("service %s is %w", name, err), suggest(name, names, "systemctl start supervisor@"+name)}
	}
	if err != nil {
		return nil, fmt.Errorf("reach service %s: %w", name, err)
	}
	return client, nil
}
