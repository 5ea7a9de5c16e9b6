// The daemon's right to ask an IoT hub about its twins; for a new hub and for one that was there before.

@description('Name of the IoT hub, in the resource group that this module is deployed to.')
@minLength(3)
@maxLength(50)
param hubName string

@description('Object id of the daemon\'s identity.')
param principalId string

@description('Whether the right is given. The host name is told in any case.')
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
