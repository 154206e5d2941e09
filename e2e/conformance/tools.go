// Package conformance pins the official conformance suite of the OCI distribution specification.
package conformance

import _ "github.com/opencontainers/distribution-spec/conformance"
