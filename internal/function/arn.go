package function

// Region is where functions say that they are, in the form that AWS's tools ask for.
const Region = "xx-local-1"

// Account stands where AWS has the number of an account.
const Account = "000000000000"

// LambdaName names a function where AWS has a name without a namespace: hello of the
// default namespace is hello, and of shop it is shop_hello. AWS allows the underscore
// and our names do not have it, so a name means one function.
func LambdaName(r Ref) string {
	if r.Namespace == DefaultNamespace {
		return r.Name
	}
	return r.Namespace + "_" + r.Name
}

// ARN names a function the way AWS does (IAM User Guide, "Amazon Resource Names").
func ARN(region string, r Ref) string {
	return "arn:aws:lambda:" + region + ":" + Account + ":function:" + LambdaName(r)
}
