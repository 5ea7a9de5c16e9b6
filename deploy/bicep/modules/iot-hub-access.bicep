// The daemon's role to read the twins of an IoT hub, new or existing.

@description('Name of the IoT hub, in the resource group of this module.')
@minLength(3)
@maxLength(50)
param hubName string

@description('Object id of the daemon\'s identity.')
param principalId string

@description('Whether the role is assigned. The host name is returned in any case.')
param mayAsk bool

var roles = loadJsonContent('../roles.json')

resource hub 'Microsoft.Devices/IotHubs@2023-06-30' existing = {
  name: hubName
}

resource reader 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (mayAsk) {
  scope: hub
  name: guid(hub.id, principalId, roles['IoT Hub Data Reader'])
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles['IoT Hub Data Reader'])
  }
}

@description('Host name of the hub.')
output hostName string = hub.properties.hostName
