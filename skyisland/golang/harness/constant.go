package harness

import (
	"go/constant"
	"go/token"
	"math"
	"reflect"
)

// The compiler's own limits for untyped constants (cmd/compile/internal/types2: literals.go, const.go).
const (
	maxLiteral = 10000 // characters of a number
	maxBits    = 512   // bits of an integer
)

// assign converts a literal to the type of a parameter, as the compiler converts an untyped constant
// (https://go.dev/ref/spec#Assignability, #Representability, #Constants). If that is impossible, problem
// says why.
func assign(literal string, to reflect.Type) (value reflect.Value, problem string) {
	if literal == "nil" {
		switch to.Kind() {
		case reflect.Chan, reflect.Func, reflect.Interface, reflect.Map, reflect.Ptr, reflect.Slice,
			reflect.UnsafePointer:
			return reflect.Zero(to), ""
		}
		return value, "nil is no " + to.String()
	}
	c, kind, problem := parse(literal)
	if problem != "" {
		return value, problem
	}
	wanted := to.String()
	if to.Kind() == reflect.Interface {
		if to.NumMethod() > 0 {
			return value, "a constant has no methods and is no " + wanted
		}
		to = kind.standard
	}
	value = reflect.New(to).Elem()
	fits, overflows := true, false
	switch to.Kind() {
	case reflect.Bool:
		if fits = c.Kind() == constant.Bool; fits {
			value.SetBool(constant.BoolVal(c))
		}
	case reflect.String:
		if fits = c.Kind() == constant.String; fits {
			value.SetString(constant.StringVal(c))
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		whole := constant.ToInt(c)
		if fits = whole.Kind() == constant.Int; fits {
			i, exact := constant.Int64Val(whole)
			overflows = !exact || value.OverflowInt(i)
			value.SetInt(i)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		whole := constant.ToInt(c)
		if fits = whole.Kind() == constant.Int; fits {
			u, exact := constant.Uint64Val(whole)
			overflows = !exact || value.OverflowUint(u)
			value.SetUint(u)
		}
	case reflect.Float32, reflect.Float64:
		real := constant.ToFloat(c)
		if fits = real.Kind() == constant.Float; fits {
			f := round(real, to.Bits())
			overflows = math.IsInf(f, 0)
			value.SetFloat(f)
		}
	case reflect.Complex64, reflect.Complex128:
		both := constant.ToComplex(c)
		if fits = both.Kind() == constant.Complex; fits {
			re := round(constant.ToFloat(constant.Real(both)), to.Bits()/2)
			im := round(constant.ToFloat(constant.Imag(both)), to.Bits()/2)
			overflows = math.IsInf(re, 0) || math.IsInf(im, 0)
			value.SetComplex(complex(re, im))
		}
	default:
		fits = false
	}
	switch {
	case !fits:
		return value, "a constant of kind " + kind.name + " with this value is no " + wanted
	case overflows:
		return value, "this number is out of range for " + to.String()
	}
	return value, ""
}

// kind is the kind of an untyped constant, and the type that it takes where any type is allowed.
type kind struct {
	name     string
	token    token.Token
	standard reflect.Type
}

var (
	kindBool    = kind{"bool", token.ILLEGAL, reflect.TypeOf(false)}
	kindString  = kind{"string", token.STRING, reflect.TypeOf("")}
	kindRune    = kind{"rune", token.CHAR, reflect.TypeOf('a')}
	kindInt     = kind{"int", token.INT, reflect.TypeOf(0)}
	kindFloat   = kind{"float", token.FLOAT, reflect.TypeOf(0.0)}
	kindComplex = kind{"complex", token.IMAG, reflect.TypeOf(0i)}
)

func parse(literal string) (c constant.Value, k kind, problem string) {
	if literal == "true" || literal == "false" {
		return constant.MakeBool(literal == "true"), kindBool, ""
	}
	sign, number := token.ADD, literal
	if literal != "" && (literal[0] == '-' || literal[0] == '+') {
		if literal[0] == '-' {
			sign = token.SUB
		}
		number = literal[1:]
	}
	k = kindOf(number)
	counts := k != kindString && k != kindRune
	if counts && len(number) > maxLiteral {
		return nil, k, "a number may have 10000 characters at most"
	}
	c = constant.MakeFromLiteral(number, k.token, 0)
	if c.Kind() == constant.Unknown {
		return nil, k, "not a valid " + k.name + " literal, or out of the range of constants"
	}
	if k != kindString {
		c = constant.UnaryOp(sign, c, 0)
	}
	if c.Kind() == constant.Int && constant.BitLen(c) > maxBits {
		return nil, k, "a whole number may have 512 bits at most"
	}
	return c, k, ""
}

// kindOf returns the kind of a literal without its sign.
func kindOf(literal string) kind {
	if literal == "" {
		return kindInt
	}
	hex := len(literal) > 1 && (literal[1] == 'x' || literal[1] == 'X')
	result := kindInt
	switch literal[0] {
	case '"', '`':
		return kindString
	case '\'':
		return kindRune
	}
	for _, c := range literal {
		switch {
		case c == 'i':
			return kindComplex
		case c == '.', c == 'p', c == 'P', !hex && (c == 'e' || c == 'E'):
			result = kindFloat
		}
	}
	return result
}

// round returns the nearest float of 32 or 64 bits, or infinity if there is none. It never returns a negative
// zero, because constants have none.
func round(c constant.Value, bits int) float64 {
	f, _ := constant.Float64Val(c)
	if bits == 32 {
		single, _ := constant.Float32Val(c)
		f = float64(single)
	}
	if f == 0 {
		return 0
	}
	return f
}
