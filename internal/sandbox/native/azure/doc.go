// Package azure speaks to Azure Functions custom handlers: servers that a Functions
// host calls on FUNCTIONS_CUSTOMHANDLER_PORT. It reads host.json and each function's
// function.json, makes the request that the host would make of an invocation, and
// makes an answer of what comes back.
//
// The native sandbox may import it. It imports the packages sandbox and web. An App
// is read-only once loaded; a Handler belongs to one instance and serves one
// invocation at a time.
//
// # What is kept of Azure
//
// The protocol is that of Microsoft's page "Azure Functions custom handlers", and
// where that is silent, of the source of the Functions host, version 4:
//
//   - An invocation is POST /{function} with {"Data": …, "Metadata": …}; the answer
//     is {"Outputs": …, "Logs": …, "ReturnValue": …}. A status other than 2xx is a
//     failure.
//   - With enableForwardingHttpRequest, or enableProxyingHttpRequest, a function that
//     has HTTP in and out and nothing else gets the request as it came, and its
//     answer is the answer.
//   - Routes are {routePrefix}/{route}, "api" and the function's name unless host.json
//     and function.json say otherwise, with parameters, their constraints and a
//     catch-all.
//   - Without an HTTP output the answer is 204.
//
// # What differs
//
//   - authLevel means nothing: who may call is the platform's to decide.
//   - Output bindings other than HTTP have nowhere to go; Answer.Dropped names them.
//     Input bindings other than the trigger are refused when the app is loaded.
//   - A string that happens to be valid base64 is not decoded, as the host does for
//     outputs that are not declared binary.
//   - The message of a queue is a string in Data, as documented; the host encodes it
//     as JSON twice.
package azure
