// Package conformance pins the program that took the place of the OCI distribution specification's conformance suite.
package conformance

import _ "github.com/opencontainers/distribution-spec/conformance"
