// Package ext is where builds of Traefik hang in settings of their own. This one has none. Traefik's module refers to the package but
// leaves it out.
package ext

// HTTP has no further settings of dynamic HTTP configuration.
type HTTP struct{}

// Router has no further settings of a router.
type Router struct{}
